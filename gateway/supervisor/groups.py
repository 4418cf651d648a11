"""Ready-made groups for the supervisor's tree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from gateway.supervisor.living import Group, IsFailing
from gateway.supervisor.settings import Runtime, SupervisorSettings
from gateway.supervisor.sockets import VALKEY_SOCKET, short_socket_path
from gateway.supervisor.valkey import VALKEY, valkey_log, valkey_spec, wait_ready


def valkey_group(
    data_dir: Path,
    env: Mapping[str, str],
    *,
    on_ready: Callable[[], Awaitable[None]] | None = None,
    settings: SupervisorSettings | None = None,
    runtime: Runtime | None = None,
) -> Group:
    """The embedded Valkey as a group that is ready once it answers.

    Args:
        data_dir: The claimed data folder, absolute.
        env: The server's environment.
        on_ready: The caller's step once it answers for the first time.
        settings: Bounds.
        runtime: Time.

    Raises:
        ValkeyMissing: The server is not installed.
        SocketPathTooLong: No short enough place for the socket.
        DataFolderUnusable: Its folder cannot be made.
    """

    async def ready(is_failing: IsFailing) -> None:
        await wait_ready(
            short_socket_path(data_dir, VALKEY_SOCKET),
            valkey_log(data_dir),
            is_failing=is_failing,
            settings=settings,
            runtime=runtime,
        )

    return Group(VALKEY, (valkey_spec(data_dir, env, settings),), ready, on_ready)
