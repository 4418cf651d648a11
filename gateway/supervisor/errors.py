"""Errors of the supervisor; each message says what happened and what to do next.

SupervisorError
├── AlreadyRunning        another process holds the data folder
├── DataFolderUnusable    the folder cannot be made, opened or locked
├── ListenerFailed        the TCP port cannot be bound
├── OrphanStillRunning    a child of an earlier run cannot be ended
├── SocketPathTooLong     no place gives a short enough Unix socket path
├── SpawnFailed           a child's program cannot be started at all
├── StartFailed           a group never became ready
└── ValkeyMissing         the embedded server is not installed
"""

from __future__ import annotations

from pathlib import Path


class SupervisorError(Exception):
    """Base of all errors that the supervisor raises on purpose."""


class AlreadyRunning(SupervisorError):
    """Another living process holds the lock of the data folder.

    Attributes:
        pid: The holder's process id; None when the lock file does not say.
    """

    def __init__(self, data_dir: Path, pid: int | None, *, waited_s: float = 0.0) -> None:
        """Builds the message from the folder, the holder and the time waited in seconds."""
        holder = (
            "another tollway process" if pid is None else f"another tollway process (pid {pid})"
        )
        waited = f" (waited {waited_s:g} s)" if waited_s else ""
        stop = "stop it" if pid is None else f"stop it with 'kill {pid}'"
        super().__init__(
            f"{holder} is using the data folder {str(data_dir)!r}{waited}: "
            f"{stop}, or choose another folder with --data"
        )
        self.pid = pid


class DataFolderUnusable(SupervisorError):
    """The data folder cannot be made, opened or locked."""


class ListenerFailed(SupervisorError):
    """The TCP listener cannot be bound; the message names the option to change."""


class OrphanStillRunning(SupervisorError):
    """A child that an earlier run left behind is still alive and cannot be ended."""


class SocketPathTooLong(SupervisorError):
    """Neither the data folder nor the temporary folder gives a short enough socket path."""


class SpawnFailed(SupervisorError):
    """The child's program cannot be started: missing, not executable, no memory."""


class StartFailed(SupervisorError):
    """A group of children did not become ready in time, or its processes keep dying."""


class ValkeyMissing(SupervisorError):
    """The embedded Valkey server is not installed."""
