"""`DATA/lock`: who uses the data folder, and which children it has.

The file is locked with flock(2) for as long as its owner lives and is never unlinked or
renamed, because either would leave two owners with a lock on two inodes. It is rewritten in
place by one write padded to whole blocks, and carries a checksum, so that a reader (who needs
no lock) can tell a torn text and read again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gateway.supervisor.child import Child
from gateway.supervisor.errors import DataFolderUnusable
from gateway.supervisor.processes import boot_id, is_alive, start_ticks
from gateway.supervisor.settings import SupervisorSettings
from gateway.supervisor.sockets import remove_short_folder

_BLOCK_BYTES = 4096
_MAX_BYTES = 1 << 20

HolderKind = Literal["serve", "command"]


@dataclass(frozen=True, slots=True)
class ChildEntry:
    """One child as the lock file names it.

    Attributes:
        name: As in its `ChildSpec`.
        role: As in its `ChildSpec`.
        pid: Process id, which is also its process group's.
        start_ticks: Start time in clock ticks since boot; None where the system has none.
        end_signal: What ends it as an orphan: SIGTERM (15) for Valkey, SIGKILL (9) for others.
        socket: The Unix socket it serves, or None.
    """

    name: str
    role: str
    pid: int
    start_ticks: int | None
    end_signal: int
    socket: str | None


@dataclass(frozen=True, slots=True)
class LockState:
    """What the lock file says.

    Attributes:
        pid: The owner; None when the folder was left in order.
        start_ticks: Its start time, as in `ChildEntry`.
        boot: The boot in which these pids are meaningful.
        kind: `serve`, or `command` for a short-lived command with its own Valkey.
        host: Where the gateway listens; None until known.
        port: The same.
        versions: Names and versions, for `status`.
        announced: Whether the first start has been announced to the operator.
        socket_folder: Where sockets lie whose path in the data folder would be too long.
        children: Those that live, or that an earlier owner left behind.
    """

    pid: int | None = None
    start_ticks: int | None = None
    boot: str | None = None
    kind: HolderKind | None = None
    host: str | None = None
    port: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    announced: bool = False
    socket_folder: str | None = None
    children: tuple[ChildEntry, ...] = ()

    def is_live(self) -> bool:
        """Whether the owner that the file names is still running."""
        return self.pid is not None and is_alive(self.pid, self.start_ticks, self.boot)

    def socket_of(self, name: str) -> Path | None:
        """The socket of the child of that name; None when it has none or does not run."""
        for child in self.children:
            if child.name == name and child.socket is not None:
                return Path(child.socket)
        return None


def lock_path(data_dir: Path) -> Path:
    """The lock file of a data folder."""
    return data_dir / "lock"


def prepare_data_dir(data_dir: Path) -> Path:
    """Makes the data folder with mode 0700 unless it exists; returns its absolute path.

    Raises:
        DataFolderUnusable: It cannot be made, or something else has its name.
    """
    folder = data_dir.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    return folder


def read_lock(path: Path, settings: SupervisorSettings | None = None) -> LockState | None:
    """Reads a lock file without locking it; a torn text is read again.

    Blocks for some tens of milliseconds at most, and then only when the text is damaged.

    Returns:
        None when there is no such file, it is empty, or it stays unreadable.
    """
    bounds = settings or SupervisorSettings()
    for _ in range(bounds.lock_read_tries):
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_BYTES)
        except OSError:
            return None
        if not text.strip():
            return None
        state = _decode(text)
        if state is not None:
            return state
        time.sleep(bounds.lock_read_retry_s)
    return None


class LockFile:
    """The held lock of a data folder; only its holder writes the file.

    Attributes:
        data_dir: The folder, absolute.
        state: What the file says now.
    """

    def __init__(self, data_dir: Path, descriptor: int, state: LockState) -> None:
        """Takes over an open and locked descriptor; use `try_take`."""
        self.data_dir = data_dir
        self.state = state
        self._descriptor = descriptor
        self._size_bytes = os.fstat(descriptor).st_size

    @classmethod
    def try_take(cls, data_dir: Path, kind: HolderKind) -> LockFile | None:
        """Takes the lock and writes this process into it, without waiting.

        Children that the file already names are kept in it: end them (orphans.py), then
        `set_children(())`.

        Args:
            data_dir: The folder; made if absent.
            kind: What the taker is.

        Returns:
            None when another process holds the lock.

        Raises:
            DataFolderUnusable: The folder or the file cannot be made, opened or locked.
        """
        folder = prepare_data_dir(data_dir)
        path = lock_path(folder)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise _unusable(folder, error) from error
        lock = cls(folder, descriptor, read_lock(path) or LockState())
        try:
            lock._own(kind)
        except OSError as error:
            os.close(descriptor)
            raise _unusable(folder, error) from error
        return lock

    def update(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        versions: Mapping[str, str] | None = None,
        announced: bool | None = None,
    ) -> None:
        """Writes what is given; None leaves a value as it is.

        Raises:
            OSError: The file cannot be written.
        """
        changes: dict[str, Any] = {"host": host, "port": port, "announced": announced}
        if versions is not None:
            changes["versions"] = dict(versions)
        given = {name: value for name, value in changes.items() if value is not None}
        self._write(replace(self.state, **given))

    def set_children(self, children: Iterable[Child]) -> None:
        """Writes which children live now.

        Raises:
            OSError: The file cannot be written.
        """
        entries = tuple(_entry(child) for child in children)
        folders = {str(Path(e.socket).parent) for e in entries if e.socket is not None}
        elsewhere = folders - {str(self.data_dir)}
        self._write(
            replace(
                self.state,
                children=entries,
                socket_folder=min(elsewhere) if elsewhere else self.state.socket_folder,
            )
        )

    def release(self) -> None:
        """Says in the file that nobody uses the folder, and gives up the lock; idempotent."""
        if self._descriptor < 0:
            return
        if self.state.socket_folder is not None and not self.state.children:
            remove_short_folder(self.data_dir)
        # A full disk must not keep the lock held; the pid that stays is then known as dead.
        with contextlib.suppress(OSError):
            self._write(LockState(children=self.state.children, boot=self.state.boot))
        os.close(self._descriptor)
        self._descriptor = -1

    def _own(self, kind: HolderKind) -> None:
        boot = boot_id()
        same_boot = self.state.boot == boot
        self._write(
            LockState(
                pid=os.getpid(),
                start_ticks=start_ticks(os.getpid()),
                boot=boot,
                kind=kind,
                children=self.state.children if same_boot else (),
            )
        )

    def _write(self, state: LockState) -> None:
        text = _encode(state)
        # Whole blocks, and never fewer than before: one write, no truncation, and later
        # writes need no new space on a full disk.
        size_bytes = max(self._size_bytes, -(-len(text) // _BLOCK_BYTES) * _BLOCK_BYTES)
        os.pwrite(self._descriptor, text.ljust(size_bytes - 1) + b"\n", 0)
        self._size_bytes = size_bytes
        self.state = state


def _entry(child: Child) -> ChildEntry:
    spec = child.spec
    return ChildEntry(
        name=spec.name,
        role=spec.role,
        pid=child.pid,
        start_ticks=child.start_ticks,
        end_signal=int(spec.death_signal),
        socket=None if spec.socket is None else str(spec.socket),
    )


def _encode(state: LockState) -> bytes:
    fields = asdict(state)
    return json.dumps({**fields, "checksum": _checksum(fields)}).encode()


def _decode(text: bytes) -> LockState | None:
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.pop("checksum", None) != _checksum(fields):
        return None
    try:
        children = tuple(ChildEntry(**entry) for entry in fields.pop("children"))
        return LockState(**fields, children=children)
    except (TypeError, KeyError):  # written by another version
        return None


def _checksum(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unusable(folder: Path, error: OSError) -> DataFolderUnusable:
    return DataFolderUnusable(
        f"the data folder {str(folder)!r} cannot be used: {error}; "
        "check its owner and mode, or choose another with --data"
    )
