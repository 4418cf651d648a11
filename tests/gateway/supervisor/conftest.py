"""Helpers of the supervisor's tests: real processes, and waiting for events instead of sleeping."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

import gateway.supervisor
from gateway.supervisor.child import ChildSpec
from gateway.supervisor.lockfile import LockState, read_lock
from gateway.supervisor.processes import start_ticks

T = TypeVar("T")
SCRIPTS = Path(__file__).parent / "scripts"
ROOT = Path(gateway.supervisor.__file__).parents[2]
POLL_S = 0.01
BOUND_S = 20.0


@pytest.fixture
def anyio_backend() -> str:
    """The supervisor runs on asyncio."""
    return "asyncio"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder with a short path, not yet made."""
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Waiter:
    """Waits for events by looking again and again, with a bound."""

    def until(self, look: Callable[[], T], what: str) -> T:
        """Returns the first true answer of `look`; fails the test after 20 s."""
        deadline_s = time.monotonic() + BOUND_S
        while not (answer := look()):
            assert time.monotonic() < deadline_s, f"never happened: {what}"
            time.sleep(POLL_S)
        return answer

    async def until_async(self, look: Callable[[], T], what: str) -> T:
        """The same on the event loop."""
        deadline_s = time.monotonic() + BOUND_S
        while not (answer := look()):
            assert time.monotonic() < deadline_s, f"never happened: {what}"
            await asyncio.sleep(POLL_S)
        return answer


@pytest.fixture
def waiter() -> Waiter:
    """Bounded waiting."""
    return Waiter()


@dataclass
class Events:
    """What the test children wrote down."""

    path: Path
    waiter: Waiter

    def lines(self) -> list[str]:
        """All whole lines so far."""
        return self.path.read_text().splitlines() if self.path.exists() else []

    def starting(self, start: str) -> list[str]:
        """The lines that begin so."""
        return [line for line in self.lines() if line.startswith(start)]

    async def seen(self, start: str, count: int = 1) -> str:
        """Waits for the count-th line that begins so, and returns it."""
        await self.waiter.until_async(lambda: len(self.starting(start)) >= count, start)
        return self.starting(start)[count - 1]


@pytest.fixture
def events(tmp_path: Path, waiter: Waiter) -> Events:
    """An empty record of events."""
    return Events(tmp_path / "events", waiter)


@pytest.fixture
def child_spec(events: Events) -> Callable[..., ChildSpec]:
    """Makes the spec of a child that notes what happens to it."""

    def make(name: str, how: str = "polite", grace_s: float = 10.0) -> ChildSpec:
        script = str(SCRIPTS / "child_main.py")
        return ChildSpec(
            name=name,
            role=name.partition("-")[0],
            argv=(sys.executable, "-I", "-S", script, name, str(events.path), how),
            env={},
            stop_grace_s=grace_s,
        )

    return make


def gone(pid: int) -> bool:
    """No living process has that pid; one that is dead and not reaped counts as gone."""
    return start_ticks(pid) is None


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    """Says whether a process has ended."""
    return gone


@dataclass
class Server:
    """The test server as a process of its own."""

    data_dir: Path
    events: Events
    waiter: Waiter
    log: Path
    process: subprocess.Popen[bytes] | None = None
    everyone: dict[int, int | None] = field(default_factory=dict)

    def start(self, how: str = "polite") -> subprocess.Popen[bytes]:
        """Starts it without waiting for anything; what it says goes to the log file."""
        command = [
            sys.executable,
            str(SCRIPTS / "server_main.py"),
            str(self.data_dir),
            str(self.events.path),
            how,
        ]
        environment = {"PYTHONPATH": str(ROOT), "PATH": os.defpath}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        return self.process

    def start_and_wait(self, how: str = "polite") -> dict[str, int]:
        """Starts it and waits for all children to run; returns their pids by name."""
        before = len(self.events.starting("worker"))
        process = self.start(how)

        def all_up() -> bool:
            assert process.poll() is None, self.log.read_text()
            started = [e for e in self.events.starting("worker")[before:] if " started " in e]
            return len(started) == 2 and len(self.pids()) == 4

        self.waiter.until(all_up, "four children run")
        return self.pids()

    def state(self) -> LockState:
        """What the lock file says."""
        return read_lock(self.data_dir / "lock") or LockState()

    def pids(self) -> dict[str, int]:
        """The children by name, from the lock file."""
        children = self.state().children
        self.everyone.update((child.pid, child.start_ticks) for child in children)
        return {child.name: child.pid for child in children}

    def kill_everything(self) -> None:
        """SIGKILL to the server and to each child it ever named that still has its pid."""
        self.pids()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for pid, ticks in self.everyone.items():
            if ticks is not None and start_ticks(pid) == ticks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def server(data_dir: Path, events: Events, waiter: Waiter, tmp_path: Path) -> Iterator[Server]:
    """A server on the data folder; nothing of it is left after the test."""
    running = Server(data_dir, events, waiter, tmp_path / "log")
    yield running
    running.kill_everything()


@pytest.fixture
def ask() -> Callable[..., Awaitable[bytes]]:
    """Sends one inline command to a Valkey socket and returns the first line of its answer."""

    async def send(socket_path: Path, command: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(socket_path)
        try:
            writer.write(command.encode() + b"\r\n")
            line = await reader.readline()
            return await reader.readline() if line.startswith(b"$") else line
        finally:
            writer.close()

    return send
