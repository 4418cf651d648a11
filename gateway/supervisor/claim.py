"""Taking a data folder: wait for a short command, refuse a second server, end orphans."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.supervisor.errors import AlreadyRunning, OrphanStillRunning
from gateway.supervisor.lockfile import ChildEntry, HolderKind, LockFile, lock_path, read_lock
from gateway.supervisor.processes import is_alive, signal_group
from gateway.supervisor.settings import Runtime, SupervisorSettings

logger = logging.getLogger(__name__)


@asynccontextmanager
async def claim_data_folder(
    data_dir: Path,
    kind: HolderKind = "serve",
    settings: SupervisorSettings | None = None,
    runtime: Runtime | None = None,
) -> AsyncIterator[LockFile]:
    """Holds the data folder for the length of the block, with no orphan left in it.

    Makes the folder if absent. Waits at most `lock_wait_s` for a command that is just using
    it; a living server is refused at once.

    Args:
        data_dir: The data folder.
        kind: What the taker is; `serve` for a server.
        settings: Bounds.
        runtime: Time.

    Raises:
        AlreadyRunning: Another process uses the folder.
        DataFolderUnusable: The folder cannot be made, opened or locked.
        OrphanStillRunning: A child of an earlier run cannot be ended.
    """
    bounds = settings or SupervisorSettings()
    time = runtime or Runtime()
    deadline_s = time.clock() + bounds.lock_wait_s
    while (lock := LockFile.try_take(data_dir, kind)) is None:
        holder = read_lock(lock_path(data_dir), bounds)
        if holder is not None and holder.kind == "serve" and holder.is_live():
            raise AlreadyRunning(data_dir, holder.pid)
        if time.clock() >= deadline_s:
            pid = None if holder is None else holder.pid
            raise AlreadyRunning(data_dir, pid, waited_s=bounds.lock_wait_s)
        await time.sleep(bounds.poll_interval_s)
    try:
        await clear_orphans(lock, bounds, time)
        yield lock
    finally:
        lock.release()


async def clear_orphans(lock: LockFile, settings: SupervisorSettings, runtime: Runtime) -> None:
    """Ends the children that an earlier owner left behind, and takes them off the file.

    Raises:
        OrphanStillRunning: One cannot be ended; the file goes on naming it.
    """
    boot = lock.state.boot
    orphans = [c for c in lock.state.children if is_alive(c.pid, c.start_ticks, boot)]
    await asyncio.gather(*(_end(orphan, boot, settings, runtime) for orphan in orphans))
    lock.set_children(())


async def _end(
    orphan: ChildEntry, boot: str | None, settings: SupervisorSettings, runtime: Runtime
) -> None:
    if orphan.start_ticks is None:
        # Only the pid is known: it may be anybody's by now.
        raise OrphanStillRunning(
            f"{orphan.name} (pid {orphan.pid}) of an earlier run may still be running: "
            f"look with 'ps -p {orphan.pid}' and end it, or remove the file 'lock' of the data "
            "folder if that is something else; then start again"
        )
    logger.warning("ending %s (pid %d), left by an earlier run", orphan.name, orphan.pid)
    signal_number = orphan.end_signal
    waits_s = [settings.kill_wait_s]
    if signal_number != signal.SIGKILL:
        waits_s.insert(0, settings.orphan_stop_grace_s)
    for wait_s in waits_s:
        _signal(orphan, boot, signal_number)
        deadline_s = runtime.clock() + wait_s
        while is_alive(orphan.pid, orphan.start_ticks, boot):
            if runtime.clock() >= deadline_s:
                break
            await runtime.sleep(settings.poll_interval_s)
        else:
            return
        signal_number = signal.SIGKILL
    raise OrphanStillRunning(
        f"{orphan.name} (pid {orphan.pid}) of an earlier run does not end, even by SIGKILL: "
        "look at what it waits for, or choose another folder with --data"
    )


def _signal(orphan: ChildEntry, boot: str | None, signal_number: int) -> None:
    if not is_alive(orphan.pid, orphan.start_ticks, boot):
        return
    if signal_number == signal.SIGKILL:
        signal_group(orphan.pid, signal.SIGKILL)
        return
    try:
        os.kill(orphan.pid, signal_number)
    except ProcessLookupError:
        return
