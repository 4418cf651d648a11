"""Which process is which, so that a reused pid is never taken for the old one.

A process is known by its pid, its start time in clock ticks since boot (`/proc/PID/stat`,
field 22, proc(5)) and the boot. Off Linux there is no start time: such a process is never
signalled on the word of a file.
"""

from __future__ import annotations

import os
from pathlib import Path

_FIELDS_BEFORE_START = 19  # start time is field 22; the text after the name begins at field 3
_GONE_STATES = frozenset("ZXx")


def start_ticks(pid: int) -> int | None:
    """The start time of a living process in clock ticks since boot.

    Returns:
        None when there is no such process, when it is dead and only not yet reaped, or when
        the system does not say.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    if len(fields) <= _FIELDS_BEFORE_START or fields[0] in _GONE_STATES:
        return None
    return int(fields[_FIELDS_BEFORE_START])


def boot_id() -> str | None:
    """A name for this boot of the machine; None when the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def is_alive(pid: int, ticks: int | None, boot: str | None) -> bool:
    """Says whether the very process that was recorded still lives.

    Args:
        pid: Its process id.
        ticks: Its recorded start time; None when it was not known.
        boot: The recorded boot; None when it was not known.

    Returns:
        With a start time: whether pid, start time and boot all fit. Without one, where the
        system tells start times: False, it was dead when it was recorded. Elsewhere: whether
        any process has that pid, which is not enough to signal it.
    """
    if boot != boot_id():
        return False
    if ticks is not None:
        return start_ticks(pid) == ticks
    if boot is not None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def signal_group(pid: int, signal_number: int) -> None:
    """Signals the process group that a session leader leads; no group is no error."""
    try:
        os.killpg(pid, signal_number)
    except (ProcessLookupError, PermissionError):
        # PermissionError: macOS answers so for a group of which only the dead leader is left.
        return
