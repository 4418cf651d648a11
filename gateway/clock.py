"""One shared tick checks every deadline: a timer per chunk would cost more than the chunk.

A request registers one ``Watch``. Moving its deadline is an attribute assignment; the tick
(every 250 ms) cancels the task of a watch that is late, and runs what is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, TypeAlias

TICK_S = 0.25
NEVER = float("inf")

Reason: TypeAlias = Literal["connect", "first_token", "stall", "total"]


@dataclass(frozen=True, slots=True)
class Times:
    """The clocks of a worker, passed in so that tests own time."""

    now: Callable[[], float] = time.monotonic
    """Monotonic seconds; every duration and deadline."""

    wall_us: Callable[[], int] = field(default=lambda: time.time_ns() // 1000)
    """Unix microseconds; what is shown to people, and when keys expire."""


class TimedOut(Exception):
    """A watch's deadline passed.

    Attributes:
        reason: what was waited for.
    """

    def __init__(self, reason: Reason) -> None:
        """Say what was waited for."""
        super().__init__(reason)
        self.reason = reason


class Ticker:
    """Calls every registered watch with the time, when told to."""

    def __init__(self, now: Callable[[], float]) -> None:
        """``now`` is a monotonic clock in seconds."""
        self.now = now
        self._watches: set[Watch] = set()

    def __len__(self) -> int:
        """Return how many requests are being watched."""
        return len(self._watches)

    async def tick(self) -> None:
        """Check every watch once."""
        now = self.now()
        for watch in tuple(self._watches):
            watch.check(now)

    def add(self, watch: Watch) -> None:
        """Start checking ``watch``."""
        self._watches.add(watch)

    def remove(self, watch: Watch) -> None:
        """Stop checking ``watch``."""
        self._watches.discard(watch)


class Watch:
    """The deadlines of one request's task.

    Used as a context manager around one wait or a loop of waits: when the deadline set by
    ``arm`` passes, the task is cancelled and the block ends with ``TimedOut``, as
    ``asyncio.timeout`` does.
    """

    __slots__ = (
        "_cancelling",
        "_entered",
        "_fired",
        "_reason",
        "_task",
        "_ticker",
        "deadline",
        "on_tick",
    )

    def __init__(self, ticker: Ticker, on_tick: Callable[[float], None]) -> None:
        """``on_tick`` is called at every tick with the time; it must not block."""
        self._ticker = ticker
        self._task: asyncio.Task[object] | None = None
        self._entered = False
        self._fired = False
        self._cancelling = 0
        self._reason: Reason = "total"
        self.deadline = NEVER
        self.on_tick = on_tick

    def open(self) -> None:
        """Begin to be checked; the current task is the one that is cancelled."""
        self._task = asyncio.current_task()
        self._ticker.add(self)

    def close(self) -> None:
        """No longer be checked, and hold nobody: a cycle would wait for the garbage collector."""
        self._ticker.remove(self)
        self._task = None
        self.on_tick = _nothing

    def arm(self, reason: Reason, deadline: float) -> None:
        """Allow ``reason`` to take until a monotonic time."""
        self._reason = reason
        self.deadline = deadline

    def rest(self) -> None:
        """Allow any time, until armed again."""
        self.deadline = NEVER

    def check(self, now: float) -> None:
        """Cancel the task if the deadline passed inside the block; run what is due."""
        if now >= self.deadline and self._entered and not self._fired and self._task:
            self._fired = True
            self._task.cancel()
            return
        self.on_tick(now)

    def __enter__(self) -> Self:
        """Begin a block that may time out."""
        assert self._task is not None, "open() comes first"
        self._entered = True
        self._fired = False
        self._cancelling = self._task.cancelling()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Turn our own cancellation into ``TimedOut``; leave everyone else's alone."""
        self._entered = False
        self.deadline = NEVER
        if not self._fired:
            return
        assert self._task is not None
        # A disconnect may have cancelled as well: then it goes through, and wins.
        ours = self._task.uncancel() <= self._cancelling
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimedOut(self._reason) from error


def _nothing(now: float) -> None:
    """Be due for nothing."""
