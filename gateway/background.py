"""Owns every task that outlives the call that started it. The only place that creates tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger("tollway")


class Background:
    """A set of tasks with one owner: none is forgotten, all are over when it is closed."""

    def __init__(self) -> None:
        """Own nothing yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loops: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> Callable[[], bool]:
        """Run ``work`` to its end; ``finish`` waits for it. Return what cancels it."""
        return self._own(self._tasks, work, name).cancel

    def every(self, period_s: float, work: Callable[[], Awaitable[Any]], *, name: str) -> None:
        """Run ``work`` every ``period_s`` seconds until closed; a failure is logged, not fatal."""

        async def loop() -> None:
            while True:
                await asyncio.sleep(period_s)
                try:
                    await work()
                except Exception as error:
                    log.warning("%s failed: %s", name, error, exc_info=not str(error))

        _ = self._own(self._loops, loop(), name)

    async def finish(self) -> None:
        """Wait until everything spawned is over, also what is spawned meanwhile."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def aclose(self) -> None:
        """End the periodic tasks, then wait for the rest."""
        loops = set(self._loops)
        for task in loops:
            task.cancel()
        if loops:
            await asyncio.wait(loops)
        await self.finish()

    def _own(
        self, owned: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any], name: str
    ) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        owned.add(task)
        task.add_done_callback(owned.discard)
        task.add_done_callback(_report)
        return task


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the task %s failed", task.get_name(), exc_info=error)
