"""When Python looks for garbage in cycles: at times of our choosing, never by itself.

A full collection visits every object of every open stream, a second for 5,000 of them, in which
nothing else moves. Nearly all objects go when their last reference does; what cycles leave behind
is collected while it is young, and looked for everywhere when the worker is quiet.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Final

from gateway.bench import cost

QUIET_STREAMS: Final = 100
"""With at most so many open, a full collection takes some milliseconds."""

QUIET_S: Final = 10.0
BUSY_S: Final = 60.0
GROWTH: Final = 1.5
"""A worker that is never quiet collects fully when its memory has grown by so much."""

SPARE_BYTES: Final = 64 * 1024 * 1024


def take_over() -> None:
    """Turn the automatic collector off; what is loaded by now lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.disable()


def rss_bytes() -> int:
    """Return this process's resident memory; 0 where the system does not say."""
    try:
        return cost.rss_bytes([os.getpid()])
    except OSError:
        return 0


class Garbage:
    """Collects at every tick what is young, and all of it at rare moments."""

    def __init__(self, now: float, memory: Callable[[], int] = rss_bytes) -> None:
        """``now`` is monotonic seconds; ``memory`` tells the process's size in bytes."""
        self._memory = memory
        self._full_at = now
        self._full_bytes = memory()

    def tick(self, now: float, open_streams: int) -> None:
        """Collect what is due."""
        since = now - self._full_at
        quiet = open_streams <= QUIET_STREAMS and since >= QUIET_S
        if quiet or (since >= BUSY_S and self._has_grown()):
            gc.collect()
            self._full_at, self._full_bytes = now, self._memory()
        else:
            gc.collect(0)

    def _has_grown(self) -> bool:
        return self._memory() > self._full_bytes * GROWTH + SPARE_BYTES
