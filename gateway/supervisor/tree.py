"""The supervisor's tree of children: started in order, kept alive, stopped in reverse.

When that happens, at which signal, and what the exit code is; what lives and how it is stopped
is in `living.py`. Every child is spawned from the thread that runs the event loop, which must be
the main thread: the kernel ends the children when that thread ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.supervisor.child import ChildSpec
from gateway.supervisor.errors import SupervisorError
from gateway.supervisor.keeper import Keeper
from gateway.supervisor.living import Group, Living, cancel
from gateway.supervisor.lockfile import LockFile
from gateway.supervisor.settings import Runtime, SupervisorSettings

logger = logging.getLogger(__name__)

EXIT_DRAINED = 0
EXIT_ENDED_AT_ONCE = 1


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the caller wants to be told; all run on the event loop and must not block it.

    Attributes:
        on_drain: Called once as the drain begins, before any child is asked to stop: the
            place to close the listener.
        on_hangup: Run at SIGHUP, one at a time; those that come meanwhile are one more.
        on_end: Called with a child's name when its process has ended, whatever the reason and
            before it is started again.
    """

    on_drain: Callable[[], None] | None = None
    on_hangup: Callable[[], Coroutine[Any, Any, None]] | None = None
    on_end: Callable[[str], None] | None = None


class Supervisor:
    """Runs an ordered list of groups of children until it is told to drain.

    Attributes:
        living: What runs now; its groups may be replaced, added to and taken away.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        lock: LockFile,
        *,
        settings: SupervisorSettings | None = None,
        hooks: Hooks | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            groups: In the order of starting; the names of all children must differ.
            lock: The held lock of the data folder; the caller releases it afterwards.
            settings: Delays and bounds.
            hooks: What the caller wants to be told.
            runtime: Time and chance.

        Raises:
            SupervisorError: Two children have the same name.
        """
        names = [spec.name for group in groups for spec in group.children]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SupervisorError(f"child names are used twice: {twice!r}; give each its own")
        self._groups = tuple(groups)
        self._lock = lock
        self._settings = settings or SupervisorSettings()
        self._hooks = hooks or Hooks()
        self._runtime = runtime or Runtime()
        self.living = Living(lock, self._keeper, self._on_fault)
        self._hangup_wanted = False
        self._hangup: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None
        self._drain_wanted = asyncio.Event()
        self._end_wanted = asyncio.Event()
        self._finished = asyncio.Event()

    async def run(self) -> int:
        """Starts all groups, keeps them alive, and stops them when told to.

        SIGTERM and SIGINT begin the drain, a second one ends everything at once, SIGHUP calls
        its hook. No child is left when this returns, raises or is cancelled.

        Returns:
            0 after a drain, 1 when a second signal cut it short.

        Raises:
            StartFailed: A group did not become ready.
            Exception: What an `on_ready` step raised; everything has been stopped.
        """
        with self._handling_signals():
            try:
                await self._start_and_keep()
            except asyncio.CancelledError:
                self.end_now()
                raise
            finally:
                await self._stop()
        if self._fault is not None:
            raise self._fault
        return EXIT_ENDED_AT_ONCE if self._end_wanted.is_set() else EXIT_DRAINED

    def begin_drain(self) -> None:
        """Makes `run` stop all children in reverse order; from now on none is restarted."""
        if self._drain_wanted.is_set():
            return
        self._drain_wanted.set()
        self.living.retire()
        if self._hooks.on_drain is not None:
            self._hooks.on_drain()

    async def drain(self) -> None:
        """Begins the drain and waits until `run`, in another task, has stopped all children."""
        self.begin_drain()
        await self._finished.wait()

    def end_now(self) -> None:
        """Makes `run` end all children at once: SIGKILL, for Valkey SIGTERM and 2 s."""
        self.begin_drain()
        self._end_wanted.set()

    def set_announced(self) -> None:
        """Notes in the lock file that the first start has been announced.

        Raises:
            OSError: The file cannot be written.
        """
        self._lock.update(announced=True)

    def pids(self) -> dict[str, int]:
        """The living children: name to process id."""
        alive = (keeper.child for keeper in self.living.keepers())
        return {child.spec.name: child.pid for child in alive if child is not None}

    def _on_stop_signal(self) -> None:
        if self._drain_wanted.is_set():
            logger.warning("a second signal: ending at once")
            self.end_now()
        else:
            logger.info("draining: workers first, Valkey last; a second signal ends at once")
            self.begin_drain()

    def _on_hangup(self) -> None:
        self._hangup_wanted = True
        if self._hangup is None or self._hangup.done():
            self._hangup = self.living.own(self._on_hangups())
            self._hangup.add_done_callback(self.living.look_at)

    async def _on_hangups(self) -> None:
        while self._hangup_wanted and not self._drain_wanted.is_set():
            self._hangup_wanted = False
            if self._hooks.on_hangup is not None:
                await self._hooks.on_hangup()

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._on_stop_signal,
            signal.SIGINT: self._on_stop_signal,
            signal.SIGHUP: self._on_hangup,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    async def _start_and_keep(self) -> None:
        start = self.living.own(self._start())
        drain = self.living.own(self._drain_wanted.wait())
        await asyncio.wait({start, drain}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await drain
        else:
            await cancel(start)

    async def _start(self) -> None:
        for group in self._groups:
            if self._drain_wanted.is_set():
                return
            running = await self.living.start(group)
            if group.ready is not None:
                await group.ready(running.is_failing)
            if group.on_ready is not None:
                await group.on_ready()

    async def _stop(self) -> None:
        """Stops everything, in order or at once, and ends every task."""
        self.begin_drain()
        self.living.retire()  # also what was started after an earlier begin_drain
        drain = self.living.own(self.living.stop_in_order())
        at_once = self.living.own(self._end_wanted.wait())
        await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            await cancel(drain)
            await self.living.end_now()
        await self.living.end_tasks()
        self._finished.set()

    def _keeper(self, spec: ChildSpec, on_change: Callable[[], None]) -> Keeper:
        return Keeper(spec, self._settings, self._runtime, on_change, self._hooks.on_end)

    def _on_fault(self, fault: BaseException) -> None:
        """A task that raises is a fault of ours: end in order, then raise it from `run`."""
        self._fault = self._fault or fault
        self.begin_drain()
