"""The groups of children that live now: started, replaced, added to, taken away, stopped.

Every task of a supervisor is made and kept here. What decides when things happen is `tree.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.supervisor.child import ChildSpec
from gateway.supervisor.errors import StartFailed
from gateway.supervisor.keeper import Keeper
from gateway.supervisor.lockfile import LockFile

logger = logging.getLogger(__name__)

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


@dataclass(slots=True, eq=False)
class Running:
    """A group's keepers, in the order of its children."""

    group: Group
    keepers: list[Keeper] = field(default_factory=list)

    def is_failing(self) -> bool:
        """True while one of them starts in vain."""
        return any(keeper.is_failing() for keeper in self.keepers)

    def has_ended(self) -> bool:
        """True once one of them has ended, be it that it lives again."""
        return any(keeper.ends for keeper in self.keepers)


class Living:
    """What one supervisor has started, in the order of starting, and the tasks that watch it."""

    def __init__(
        self,
        lock: LockFile,
        keeper: Callable[[ChildSpec, Callable[[], None]], Keeper],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            lock: Where the living children are written down.
            keeper: Makes the keeper of a child; its second argument is to be called after each
                start and each end.
            on_fault: Told of what a task raised, which is a fault of ours.
        """
        self._lock = lock
        self._make = keeper
        self._on_fault = on_fault
        self._groups: list[Running] = []
        self._leaving: list[Keeper] = []
        self._removals: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._retired = False

    async def start(self, group: Group) -> Running:
        """Starts a group after those that live; returns once each child was tried.

        Raises:
            StartFailed: Everything is to end.
        """
        if self._retired:
            raise StartFailed(f"{group.name} are not started any more: everything is to stop")
        running = Running(group)
        self._groups.append(running)
        for spec in group.children:
            keeper = self._make(spec, self.record)
            running.keepers.append(keeper)
            self.own(keeper.run()).add_done_callback(self.look_at)
        for keeper in running.keepers:
            await keeper.tried.wait()
        return running

    async def add(self, group: Group) -> IsFailing:
        """Starts a group before the last one, to be stopped after it; ends what was leaving.

        Returns:
            A function that says whether a child of the group has ended since.

        Raises:
            StartFailed: Everything is to end.
        """
        await self._end_leaving()
        running = await self.start(group)
        self._groups.remove(running)
        self._groups.insert(len(self._groups) - 1, running)
        return running.has_ended

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
        await self._end_leaving()
        running = await self.start(group)
        try:
            if group.ready is not None:
                await group.ready(running.is_failing)
        except BaseException:
            await asyncio.gather(*(keeper.stop() for keeper in running.keepers))
            self._groups.remove(running)
            raise
        old = [one for one in self._groups if one.group.name == group.name and one is not running]
        for one in old:
            self._groups.remove(one)
            self._leaving += one.keepers
        for keeper in self._leaving:
            keeper.retire()
            self.own(_leave(keeper, patience_s)).add_done_callback(self.look_at)

    def remove_later(self, names: Collection[str]) -> None:
        """Stops the children that have these names now, once what was replaced has left."""
        gone = [keeper for keeper in self.keepers() if keeper.spec.name in names]
        if gone:
            removal = self.own(self._remove(gone))
            removal.add_done_callback(self.look_at)
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)

    def keepers(self) -> list[Keeper]:
        """Those of all groups, and of what is leaving."""
        running = [keeper for group in self._groups for keeper in group.keepers]
        return [*running, *self._leaving]

    def signal(self, name: str, signal_number: int) -> None:
        """Signals every living child of the group of that name."""
        for running in self._groups:
            if running.group.name == name:
                for keeper in running.keepers:
                    if keeper.child is not None:
                        keeper.child.signal(signal_number)

    def retire(self) -> None:
        """From now on nothing is started, and no death is followed by a restart."""
        self._retired = True
        for keeper in self.keepers():
            keeper.retire()

    async def stop_in_order(self) -> None:
        """Stops the groups in reverse; what is leaving goes with the last one."""
        groups = [[*running.keepers] for running in self._groups]
        groups[-1:] = [[*(groups[-1] if groups else []), *self._leaving]]
        for keepers in reversed(groups):
            await asyncio.gather(*(keeper.stop() for keeper in keepers))

    async def end_now(self) -> None:
        """Ends every child at once."""
        await asyncio.gather(*(keeper.end_now() for keeper in self.keepers()))

    async def end_tasks(self) -> None:
        """Ends every task; the children must have ended before."""
        for task in list(self._tasks):
            await cancel(task)
        self.record()

    def record(self) -> None:
        """Writes the living children into the lock file."""
        alive = (keeper.child for keeper in self.keepers())
        try:
            self._lock.set_children(child for child in alive if child is not None)
        except OSError as error:
            # The children matter more than the record of them.
            logger.error("the lock file cannot be written: %s; free some space", error)

    def own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a task, whose outcome is the caller's to look at."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def look_at(self, task: asyncio.Task[None]) -> None:
        """What a task raises that must not raise is a fault: for `add_done_callback`."""
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._on_fault(fault)

    async def _remove(self, gone: Collection[Keeper]) -> None:
        for keeper in self._leaving:
            if keeper.child is not None:
                await keeper.child.wait()
        await asyncio.gather(*(keeper.stop() for keeper in gone))
        for running in self._groups:
            running.keepers = [keeper for keeper in running.keepers if keeper not in gone]
        self._groups = [running for running in self._groups if running.keepers]

    async def _end_leaving(self) -> None:
        """Ends what the last replacement has left over, so that names and sockets are free."""
        await asyncio.gather(*(keeper.stop() for keeper in self._leaving))
        self._leaving = []
        if self._removals:
            await asyncio.wait(self._removals)


async def cancel(task: asyncio.Task[Any]) -> None:
    """Ends a task and waits for that; what it raises is logged."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("while ending: %r", error)


async def _leave(keeper: Keeper, patience_s: float) -> None:
    """Lets a retired child end by itself, and stops it when that takes too long."""
    if (child := keeper.child) is not None:
        child.signal(signal.SIGUSR1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await child.wait()
    await keeper.stop()
