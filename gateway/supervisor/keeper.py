"""Keeps one child alive: starts it, watches it, starts it again after a growing pause."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Callable

from gateway.supervisor.backoff import Backoff
from gateway.supervisor.child import Child, ChildSpec
from gateway.supervisor.errors import SpawnFailed
from gateway.supervisor.settings import Runtime, SupervisorSettings

logger = logging.getLogger(__name__)


class Keeper:
    """One child that is to live until it is asked to stop.

    `run` belongs in a task of the owner's; after `stop` or `end_now` the owner cancels it.

    Attributes:
        spec: What is kept alive.
        tried: Set once its first start was tried.
        ends: How often it has ended, or could not be started.
    """

    def __init__(
        self,
        spec: ChildSpec,
        settings: SupervisorSettings,
        runtime: Runtime,
        on_change: Callable[[], None],
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            spec: What to keep alive.
            settings: Delays and bounds.
            runtime: Time and chance.
            on_change: Called after each start and each end of the process.
            on_end: Called with the child's name after each end, and before the next start.
        """
        self.spec = spec
        self.tried = asyncio.Event()
        self.ends = 0
        self._settings = settings
        self._runtime = runtime
        self._on_change = on_change
        self._on_end = on_end
        self._backoff = Backoff(settings, runtime.chance)
        self._child: Child | None = None
        self._retired = False

    @property
    def child(self) -> Child | None:
        """The process that lives now, or None."""
        if self._child is None or self._child.returncode is not None:
            return None
        return self._child

    def is_failing(self) -> bool:
        """True while start after start ends within its first moments."""
        return self._backoff.failing

    def is_retired(self) -> bool:
        """True once no restart is to follow."""
        return self._retired

    def retire(self) -> None:
        """From now on a death is not followed by a restart."""
        self._retired = True

    async def run(self) -> None:
        """Starts the child and keeps it alive until it is retired; may be cancelled."""
        while not self.is_retired():
            started_s = self._runtime.clock()
            outcome = await self._one_life()
            self.ends += 1
            if self.is_retired():
                return
            lived_s = self._runtime.clock() - started_s
            delay_s = self._backoff.delay_after(lived_s)
            self._log_death(outcome, lived_s, delay_s)
            await self._runtime.sleep(delay_s)

    async def stop(self) -> None:
        """Asks the child to leave, and kills it after its grace; it is not started again."""
        self.retire()
        if self._child is not None:
            await self._child.stop()

    async def end_now(self) -> None:
        """Ends the child at once, Valkey within a short grace; it is not started again."""
        self.retire()
        if self._child is not None:
            await self._child.end_now()

    async def _one_life(self) -> str:
        """Starts the child and waits for its end; returns how it ended, in words."""
        try:
            child = Child.spawn(self.spec, self._settings)
        except SpawnFailed as error:
            return str(error)
        finally:
            self.tried.set()
        self._child = child
        self._on_change()
        logger.info("%s started (pid %d)", self.spec.name, child.pid)
        status = await child.wait()
        self._child = None
        self._on_change()
        if self._on_end is not None:
            self._on_end(self.spec.name)
        how = f"by signal {-status}" if status < 0 else f"with exit code {status}"
        return f"{self.spec.name} (pid {child.pid}) ended {how}"

    def _log_death(self, outcome: str, lived_s: float, delay_s: float) -> None:
        if self.is_failing():
            logger.error(
                "%s; it has failed %d times in a row, each within %g s of its start; "
                "starting again in %.1f s; its command: %s",
                outcome,
                self._backoff.quick_deaths,
                self._settings.quick_death_s,
                delay_s,
                shlex.join(self.spec.argv),
            )
        else:
            logger.warning("%s after %.1f s; starting again in %.1f s", outcome, lived_s, delay_s)
