"""Watches and the tick: deadlines that cost an assignment, and whose cancellation is whose."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.background import Background
from gateway.clock import NEVER, Ticker, TimedOut, Watch
from gateway.ids import request_id
from tests.gateway_harness import Clock, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    """Time that stands still."""
    return Clock()


@pytest.fixture
def ticker(clock: Clock) -> Ticker:
    """A tick that the test makes."""
    return Ticker(clock.times.now)


async def opened(ticker: Ticker) -> Watch:
    """A watch over the current task."""
    watch = Watch(ticker, lambda now: None)
    watch.open()
    return watch


async def test_a_late_watch_ends_its_block_with_the_reason(ticker: Ticker, clock: Clock) -> None:
    """The wait is cancelled at the tick after the deadline, and only then."""
    reached = asyncio.Event()

    async def wait() -> str:
        watch = await opened(ticker)
        try:
            with watch:
                watch.arm("stall", clock.at_s + 5)
                reached.set()
                await asyncio.Event().wait()
        except TimedOut as late:
            return late.reason
        finally:
            watch.close()
        return "not late"

    task = asyncio.create_task(wait())
    await reached.wait()
    clock.advance(4.9)
    await ticker.tick()
    await asyncio.sleep(0)
    assert not task.done()
    clock.advance(0.1)
    await ticker.tick()
    assert await task == "stall"
    assert len(ticker) == 0


async def test_arming_again_moves_the_deadline(ticker: Ticker, clock: Clock) -> None:
    """The last one counts."""
    watch = await opened(ticker)
    with watch:
        watch.arm("first_token", clock.at_s + 1)
        watch.arm("stall", clock.at_s + 100)
        clock.advance(50)
        await ticker.tick()
        await asyncio.sleep(0)
    assert watch.deadline == NEVER
    watch.close()


async def test_outside_its_block_a_watch_never_cancels(ticker: Ticker, clock: Clock) -> None:
    """A deadline ends with the block that set it; ticks go on."""
    ticks: list[float] = []
    watch = Watch(ticker, ticks.append)
    watch.open()
    with watch:
        watch.arm("stall", clock.at_s + 1)
    clock.advance(10)
    await ticker.tick()
    await asyncio.sleep(0)
    assert ticks == [clock.at_s]
    watch.close()
    await ticker.tick()
    assert len(ticks) == 1


async def test_a_foreign_cancellation_goes_through_and_wins(ticker: Ticker, clock: Clock) -> None:
    """A disconnect together with a deadline is a disconnect; the task counts one cancellation."""
    reached, caught = asyncio.Event(), []

    async def wait() -> None:
        watch = await opened(ticker)
        task = asyncio.current_task()
        assert task is not None
        try:
            with watch:
                watch.arm("stall", clock.at_s + 1)
                reached.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            caught.append(task.cancelling())
            raise

    task = asyncio.create_task(wait())
    await reached.wait()
    clock.advance(2)
    await ticker.tick()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caught == [1]


async def test_a_deadline_that_fires_as_the_block_fails_keeps_the_failure(
    ticker: Ticker, clock: Clock
) -> None:
    """The error that ended the block is told, and the task is not left cancelled."""
    watch = await opened(ticker)
    task = asyncio.current_task()
    assert task is not None

    async def fail_when_cancelled() -> None:
        with watch:
            watch.arm("stall", clock.at_s + 1)
            clock.advance(2)
            await ticker.tick()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("mine") from None

    with pytest.raises(ValueError, match="mine"):
        await fail_when_cancelled()
    assert task.cancelling() == 0
    watch.close()


async def test_background_owns_what_it_spawns_until_it_is_over() -> None:
    """``finish`` waits for all, also for what the tasks themselves spawn."""
    background, done = Background(), []

    async def work(depth: int) -> None:
        await asyncio.sleep(0)
        if depth:
            background.spawn(work(depth - 1), name="more")
        done.append(depth)

    background.spawn(work(3), name="work")
    await background.finish()
    assert done == [3, 2, 1, 0]
    await background.aclose()


async def test_a_periodic_task_survives_its_failures(caplog: pytest.LogCaptureFixture) -> None:
    """They are logged, and the next round comes; closing ends the loop but not the rest."""
    background, rounds = Background(), 0

    async def fail() -> None:
        nonlocal rounds
        rounds += 1
        raise ValueError(f"round {rounds}")

    background.every(0.001, fail, name="sweep")
    await until(lambda: rounds >= 3)
    await background.aclose()
    ended = rounds
    await asyncio.sleep(0)
    assert rounds == ended
    assert "sweep failed: round 2" in caplog.text


async def test_a_spawned_failure_is_logged_and_a_cancellation_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody awaits these tasks, so the log is where a fault shows."""
    caplog.set_level(logging.DEBUG)
    background = Background()

    async def fail() -> None:
        raise ValueError("broken")

    background.spawn(fail(), name="failing")
    cancel = background.spawn(asyncio.Event().wait(), name="waiting")
    await asyncio.sleep(0)
    assert cancel()
    await background.finish()
    assert [record.getMessage() for record in caplog.records if record.name == "tollway"] == [
        "the task failing failed"
    ]


def test_request_ids_are_taken_over_only_in_a_plain_alphabet() -> None:
    """What goes into headers and logs cannot end a line or a header."""
    assert request_id("abc-1.2:3_4") == "abc-1.2:3_4"
    for bad in (None, "", "a b", "a\r\nX: y", "ä", "x" * 129, "a\x00"):
        made = request_id(bad)
        assert made != bad
        assert made.startswith("req-")
        assert len(made) == 24
