"""One child process: started in a session of its own, watched, signalled, reaped.

Not known here: why a child runs and whether it should run again (see keeper.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import subprocess  # children are what this module is for; no shell is ever involved
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.supervisor.errors import SpawnFailed
from gateway.supervisor.processes import signal_group, start_ticks
from gateway.supervisor.settings import SupervisorSettings

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_EXIT_PARENT_GONE = 1


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to start and how to end it.

    Attributes:
        name: Unique among the children of one supervisor: `worker-1`, `valkey`.
        role: What it is: `worker`, `engine`, `tokenizer`, `valkey`.
        argv: Program and arguments; the program by path or to be found on `env`'s PATH.
        env: The whole environment of the child; nothing is added.
        stop_signal: Asks the child to leave.
        stop_grace_s: Seconds between that and SIGKILL for its whole process group.
        death_signal: What the child gets when its supervisor dies or everything is to end at
            once: SIGKILL, or SIGTERM for a server that must close its files.
        pass_fds: File descriptors that the child inherits beside its standard streams.
        socket: The Unix socket that the child serves, for the lock file.
    """

    name: str
    role: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # may hold secrets
    stop_grace_s: float
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    pass_fds: tuple[int, ...] = ()
    socket: Path | None = None


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """Makes the function that a child runs between fork and exec, so as not to outlive us.

    The kernel sends `death_signal` when the *thread* that forked ends (prctl(2)): spawn from
    a thread that lives as long as the supervisor. All lookups are done here, before the fork.

    Returns:
        None where the system has no such signal (anything but Linux).
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    parent_pid = os.getpid()
    number = int(death_signal)

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent_pid:  # the parent died before the line above
            os._exit(_EXIT_PARENT_GONE)

    return in_child


class Child:
    """A running or finished child process.

    Made by `Child.spawn`. It alone reaps the process, on the event loop's thread, so that a
    signal can never reach another process that was given the same pid.

    Attributes:
        spec: What was started.
        pid: Its process id, which is also its session's and its process group's.
        start_ticks: Its start time in clock ticks since boot; None where the system has none.
    """

    def __init__(
        self, spec: ChildSpec, process: subprocess.Popen[bytes], settings: SupervisorSettings
    ) -> None:
        """Watches `process`; call from the thread of the running event loop."""
        self.spec = spec
        self.pid = process.pid
        self.start_ticks = start_ticks(process.pid)
        self._process = process
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = self._open_pidfd()
        if self._pidfd is None:
            self._poll()
        else:
            self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def spawn(cls, spec: ChildSpec, settings: SupervisorSettings | None = None) -> Child:
        """Starts the process; needs a running event loop and blocks it for fork and exec.

        Raises:
            SpawnFailed: The program is missing, not executable, or the system is out of means.
        """
        try:
            # The child is watched by the event loop, not by a with-block.
            process = subprocess.Popen(
                spec.argv,
                env=dict(spec.env),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=spec.pass_fds,
                preexec_fn=die_with_parent(spec.death_signal),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SpawnFailed(
                f"{spec.name} cannot be started: {error}; check that {spec.argv[0]!r} exists "
                "and may be executed"
            ) from error
        return cls(spec, process, settings or SupervisorSettings())

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while the process lives."""
        return self._exited.result() if self._exited.done() else None

    async def wait(self) -> int:
        """Waits for the end; returns the exit status, negative for a signal; may be cancelled."""
        return await asyncio.shield(self._exited)

    def signal(self, signal_number: int) -> None:
        """Signals the process itself; does nothing once it has ended."""
        if not self._exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    def kill(self) -> None:
        """Sends SIGKILL to the whole process group; does nothing once the child has ended."""
        if not self._exited.done():
            signal_group(self.pid, signal.SIGKILL)

    async def stop(self) -> int | None:
        """Asks the child to leave, kills its group after the grace, and reaps it.

        Returns:
            The exit status; None when the process did not vanish even after SIGKILL, which
            is logged.
        """
        return await self._end(self.spec.stop_signal, self.spec.stop_grace_s)

    async def end_now(self) -> int | None:
        """Ends the child by its death signal: at once, or for Valkey within a short grace.

        Returns:
            As `stop`.
        """
        if self.spec.death_signal == signal.SIGKILL:
            return await self._kill_and_wait()
        return await self._end(self.spec.death_signal, self._settings.abrupt_grace_s)

    async def _end(self, signal_number: int, grace_s: float) -> int | None:
        self.signal(signal_number)
        try:
            async with asyncio.timeout(grace_s):
                return await self.wait()
        except TimeoutError:
            logger.warning(
                "%s (pid %d) did not leave within %g s: killing it",
                self.spec.name,
                self.pid,
                grace_s,
            )
        return await self._kill_and_wait()

    async def _kill_and_wait(self) -> int | None:
        self.kill()
        try:
            async with asyncio.timeout(self._settings.kill_wait_s):
                return await self.wait()
        except TimeoutError:
            logger.error("%s (pid %d) is still there after SIGKILL", self.spec.name, self.pid)
            return None

    def _open_pidfd(self) -> int | None:
        if sys.platform != "linux":
            return None
        try:
            return os.pidfd_open(self.pid)
        except OSError:  # kernels and sandboxes without pidfd
            return None

    def _poll(self) -> None:
        self._reap()
        if not self._exited.done():
            self._loop.call_later(self._settings.poll_interval_s, self._poll)

    def _reap(self) -> None:
        if self._pidfd is not None:
            # The leader is dead but not reaped, so its number still names its group: nothing
            # that the child started may outlive it.
            signal_group(self.pid, signal.SIGKILL)
        status = self._process.poll()
        if status is None:
            return
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        if not self._exited.done():
            self._exited.set_result(status)
