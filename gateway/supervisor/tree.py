"""The supervisor's tree of children: started in order, kept alive, stopped in reverse.

The only module that makes tasks, and it sees each of them to its end. Every child is spawned
from the thread that runs the event loop, which must be the main thread: the kernel ends the
children when that thread ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.supervisor.child import ChildSpec
from gateway.supervisor.errors import SupervisorError
from gateway.supervisor.keeper import Keeper
from gateway.supervisor.lockfile import LockFile
from gateway.supervisor.settings import Runtime, SupervisorSettings

logger = logging.getLogger(__name__)

EXIT_DRAINED = 0
EXIT_ENDED_AT_ONCE = 1

IsFailing = Callable[[], bool]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """Children that start together, and stop together.

    Attributes:
        name: `valkey`, `engines`, `workers`.
        children: What to start.
        ready: Awaited after the first start, before the next group; it is given a function
            that says whether a child of the group keeps dying, and raises `StartFailed`.
        on_ready: A step of the caller's, awaited once after that. What it raises ends the
            supervisor.
    """

    name: str
    children: tuple[ChildSpec, ...]
    ready: Callable[[IsFailing], Awaitable[None]] | None = None
    on_ready: Callable[[], Awaitable[None]] | None = None


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


@dataclass(slots=True)
class _Running:
    """A group's keepers, in the order of its children."""

    group: Group
    keepers: list[Keeper] = field(default_factory=list)

    def is_failing(self) -> bool:
        return any(keeper.is_failing() for keeper in self.keepers)


class Supervisor:
    """Runs an ordered list of groups of children until it is told to drain."""

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
        self._running: list[_Running] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving: list[Keeper] = []
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
        self._retire()
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

    def signal_group(self, name: str, signal_number: int) -> None:
        """Signals every living child of the group of that name."""
        for running in self._running:
            if running.group.name == name:
                for keeper in running.keepers:
                    if keeper.child is not None:
                        keeper.child.signal(signal_number)

    async def replace(self, group: Group, patience_s: float) -> None:
        """Starts a group beside the one of its name, which retires once the new one is ready.

        The old children get SIGUSR1, and SIGTERM when they are still there after `patience_s`
        or when the next replacement begins.

        Args:
            group: What is to take over; its children have names of their own.
            patience_s: How long the old ones may take to leave.

        Raises:
            StartFailed: The new group did not become ready; the old one goes on.
        """
        await asyncio.gather(*(keeper.stop() for keeper in self._leaving))
        self._leaving = []
        running = await self._start_group(group)
        try:
            if group.ready is not None:
                await group.ready(running.is_failing)
        except BaseException:
            await asyncio.gather(*(keeper.stop() for keeper in running.keepers))
            self._running.remove(running)
            raise
        old = [one for one in self._running if one.group.name == group.name and one is not running]
        for one in old:
            self._running.remove(one)
            self._leaving += one.keepers
        for keeper in self._leaving:
            keeper.retire()
            self._own(_leave(keeper, patience_s)).add_done_callback(self._on_keeper_done)

    async def add(self, group: Group) -> None:
        """Starts a group before the last one, to be stopped after it."""
        running = await self._start_group(group)
        self._running.remove(running)
        self._running.insert(len(self._running) - 1, running)

    def remove_later(self, names: Collection[str]) -> None:
        """Stops the children of these names once what was replaced has left."""
        if names:
            self._own(self._remove(names)).add_done_callback(self._on_keeper_done)

    async def _remove(self, names: Collection[str]) -> None:
        for keeper in self._leaving:
            if keeper.child is not None:
                await keeper.child.wait()
        gone = [keeper for keeper in self._keepers() if keeper.spec.name in names]
        await asyncio.gather(*(keeper.stop() for keeper in gone))
        for running in self._running:
            running.keepers = [keeper for keeper in running.keepers if keeper not in gone]

    def pids(self) -> dict[str, int]:
        """The living children: name to process id."""
        alive = (keeper.child for keeper in self._keepers())
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
            self._hangup = self._own(self._on_hangups())
            self._hangup.add_done_callback(self._on_keeper_done)

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
        start = self._own(self._start())
        drain = self._own(self._drain_wanted.wait())
        await asyncio.wait({start, drain}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await drain
        else:
            await _cancel(start)

    async def _start(self) -> None:
        for group in self._groups:
            running = await self._start_group(group)
            if group.ready is not None:
                await group.ready(running.is_failing)
            if group.on_ready is not None:
                await group.on_ready()

    async def _start_group(self, group: Group) -> _Running:
        running = _Running(group)
        self._running.append(running)
        for spec in group.children:
            bounds, runtime, on_end = self._settings, self._runtime, self._hooks.on_end
            keeper = Keeper(spec, bounds, runtime, self._record, on_end)
            running.keepers.append(keeper)
            self._own(keeper.run()).add_done_callback(self._on_keeper_done)
        for keeper in running.keepers:
            await keeper.tried.wait()
        return running

    async def _stop(self) -> None:
        """Stops everything, in order or at once, and ends every task."""
        self.begin_drain()
        self._retire()  # also what was started after an earlier begin_drain
        drain = self._own(self._stop_in_order())
        at_once = self._own(self._end_wanted.wait())
        await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            await _cancel(drain)
            await asyncio.gather(*(keeper.end_now() for keeper in self._keepers()))
        for task in list(self._tasks):
            await _cancel(task)
        self._record()
        self._finished.set()

    async def _stop_in_order(self) -> None:
        groups = [[*running.keepers] for running in self._running]
        groups[-1:] = [[*(groups[-1] if groups else []), *self._leaving]]
        for keepers in reversed(groups):
            await asyncio.gather(*(keeper.stop() for keeper in keepers))

    def _retire(self) -> None:
        for keeper in self._keepers():
            keeper.retire()

    def _keepers(self) -> list[Keeper]:
        running = [keeper for running in self._running for keeper in running.keepers]
        return [*running, *self._leaving]

    def _record(self) -> None:
        alive = (keeper.child for keeper in self._keepers())
        try:
            self._lock.set_children(child for child in alive if child is not None)
        except OSError as error:
            # The children matter more than the record of them.
            logger.error("the lock file cannot be written: %s; free some space", error)

    def _own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _on_keeper_done(self, task: asyncio.Task[None]) -> None:
        """A keeper that raises is a fault of ours: end in order, then raise it from `run`."""
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = self._fault or fault
            self.begin_drain()


async def _leave(keeper: Keeper, patience_s: float) -> None:
    """Lets a retired child end by itself, and stops it when that takes too long."""
    if (child := keeper.child) is not None:
        child.signal(signal.SIGUSR1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await child.wait()
    await keeper.stop()


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("while ending: %r", error)
