"""Every number of the supervisor, and the sources of time and chance that tests replace."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """Bounds and delays; the unit stands last in each name.

    Attributes:
        restart_first_delay_s: Wait before the first restart of a child; doubles each time.
        restart_max_delay_s: The longest wait between restarts.
        restart_jitter_fraction: Largest part of a wait that chance may take off, so that
            children that died together do not come back together.
        healthy_after_s: A child that lived this long starts again at the first delay.
        quick_death_s: A child that dies younger than this failed to start.
        quick_deaths_before_error: Failed starts in a row before they are logged as an error.
        drain_seconds: Time that open streams get to finish.
        drain_margin_s: What a worker gets on top to settle and leave.
        engine_stop_grace_s: Time between SIGTERM and SIGKILL for an engine.
        tokenizer_stop_grace_s: The same for the tokenizer, which has nothing to lose.
        valkey_stop_grace_s: The same for Valkey, which writes its log on the way out.
        abrupt_grace_s: The same for Valkey when everything is to end at once.
        orphan_stop_grace_s: The same for a Valkey that an earlier run left behind.
        kill_wait_s: Time for a process to vanish after SIGKILL.
        poll_interval_s: Pause between two looks where no event can be waited for.
        lock_wait_s: Time to wait for a command that holds the data folder.
        lock_read_tries: Reads of a lock file before it counts as unreadable.
        lock_read_retry_s: Pause between two such reads.
        valkey_ready_timeout_s: Time from start to the first answer, loading included.
        valkey_ping_timeout_s: Time for one answer.
        log_tail_lines: Lines of a log that an error message quotes.
    """

    restart_first_delay_s: float = 0.5
    restart_max_delay_s: float = 10.0
    restart_jitter_fraction: float = 0.1
    healthy_after_s: float = 30.0
    quick_death_s: float = 1.0
    quick_deaths_before_error: int = 5
    drain_seconds: float = 30.0
    drain_margin_s: float = 5.0
    engine_stop_grace_s: float = 10.0
    tokenizer_stop_grace_s: float = 2.0
    valkey_stop_grace_s: float = 10.0
    abrupt_grace_s: float = 2.0
    orphan_stop_grace_s: float = 10.0
    kill_wait_s: float = 5.0
    poll_interval_s: float = 0.02
    lock_wait_s: float = 15.0
    lock_read_tries: int = 20
    lock_read_retry_s: float = 0.002
    valkey_ready_timeout_s: float = 60.0
    valkey_ping_timeout_s: float = 1.0
    log_tail_lines: int = 10

    @property
    def worker_stop_grace_s(self) -> float:
        """Time between SIGTERM and SIGKILL for a worker."""
        return self.drain_seconds + self.drain_margin_s


@dataclass(frozen=True, slots=True)
class Runtime:
    """Time and chance, passed in so that tests can replace them.

    Attributes:
        clock: Seconds that never go backwards.
        sleep: Waits for a number of seconds; can be cancelled.
        chance: A number from 0 up to, not including, 1.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
