"""The embedded Valkey for a command line command, whether a server runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.supervisor.child import Child
from gateway.supervisor.claim import clear_orphans
from gateway.supervisor.errors import AlreadyRunning
from gateway.supervisor.lockfile import LockFile, lock_path, prepare_data_dir, read_lock
from gateway.supervisor.settings import Runtime, SupervisorSettings
from gateway.supervisor.sockets import VALKEY_SOCKET, short_socket_path
from gateway.supervisor.valkey import VALKEY, answers, valkey_log, valkey_spec, wait_ready


@asynccontextmanager
async def embedded_valkey(
    data_dir: Path,
    env: Mapping[str, str] | None = None,
    settings: SupervisorSettings | None = None,
    runtime: Runtime | None = None,
) -> AsyncIterator[Path]:
    """Yields the socket of a Valkey that answers, on this data folder.

    Where a server runs, it is the server's. Else the folder is locked, a Valkey started and,
    at the end of the block, stopped; the folder may be empty or absent. A second command
    waits for the first, at most `lock_wait_s`.

    Args:
        data_dir: The data folder.
        env: Environment of a Valkey started here.
        settings: Bounds.
        runtime: Time.

    Raises:
        AlreadyRunning: Others use the folder and offer no Valkey that answers.
        DataFolderUnusable: The folder cannot be made, opened or locked.
        OrphanStillRunning: A child of an earlier run cannot be ended.
        SpawnFailed: The server's program cannot be started.
        StartFailed: Valkey does not come up; the message quotes its log.
        ValkeyMissing: The server is not installed.
    """
    bounds = settings or SupervisorSettings()
    time = runtime or Runtime()
    folder = prepare_data_dir(data_dir)
    found = await _lock_or_socket(folder, bounds, time)
    if isinstance(found, Path):
        yield found
        return
    try:
        await clear_orphans(found, bounds, time)
        server = Child.spawn(valkey_spec(folder, env or {}, bounds), bounds)
        try:
            found.set_children((server,))
            socket_path = short_socket_path(folder, VALKEY_SOCKET)
            await wait_ready(
                socket_path,
                valkey_log(folder),
                is_failing=lambda: server.returncode is not None,
                settings=bounds,
                runtime=time,
            )
            yield socket_path
        finally:
            await server.stop()
            found.set_children(() if server.returncode is not None else (server,))
    finally:
        found.release()


async def _lock_or_socket(
    folder: Path, settings: SupervisorSettings, runtime: Runtime
) -> LockFile | Path:
    deadline_s = runtime.clock() + settings.lock_wait_s
    while (lock := LockFile.try_take(folder, "command")) is None:
        holder = read_lock(lock_path(folder), settings)
        if holder is not None and holder.kind == "serve" and holder.is_live():
            socket_path = holder.socket_of(VALKEY)
            if socket_path and await answers(socket_path, settings.valkey_ping_timeout_s):
                return socket_path
        if runtime.clock() >= deadline_s:
            pid = None if holder is None else holder.pid
            raise AlreadyRunning(folder, pid, waited_s=settings.lock_wait_s)
        await runtime.sleep(settings.poll_interval_s)
    return lock
