"""The pauses between restarts, without a process and without a clock."""

from __future__ import annotations

from gateway.supervisor.backoff import Backoff
from gateway.supervisor.settings import SupervisorSettings


def no_jitter() -> float:
    """Chance that takes nothing off."""
    return 0.0


def test_pauses_double_from_half_a_second_to_ten() -> None:
    """A child that keeps dying is started again ever more slowly, at least every 10 s."""
    backoff = Backoff(SupervisorSettings(), no_jitter)
    assert [backoff.delay_after(2.0) for _ in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]


def test_thirty_seconds_of_life_start_the_pauses_anew() -> None:
    """A child that worked for 30 s and then dies is back within half a second."""
    backoff = Backoff(SupervisorSettings(), no_jitter)
    for _ in range(4):
        backoff.delay_after(29.9)
    assert backoff.delay_after(30.0) == 0.5
    assert backoff.delay_after(0.0) == 1.0


def test_chance_takes_at_most_a_tenth_off() -> None:
    """Children that died together come back apart, and never later than the pause says."""
    backoff = Backoff(SupervisorSettings(), lambda: 0.999)
    assert 0.45 <= backoff.delay_after(0.0) < 0.5


def test_five_quick_deaths_in_a_row_count_as_failing_and_one_life_ends_it() -> None:
    """Four are bad luck, five are a fault; a life longer than a second clears it."""
    backoff = Backoff(SupervisorSettings(), no_jitter)
    for _ in range(4):
        backoff.delay_after(0.9)
    assert not backoff.failing
    backoff.delay_after(0.9)
    assert backoff.failing
    backoff.delay_after(1.0)
    assert not backoff.failing
