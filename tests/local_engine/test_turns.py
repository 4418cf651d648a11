"""An account has one job at a time in the threads, and no lock when it has none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from local_engine.turns import Turns

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    """Two threads."""
    turns = Turns(2, "test")
    yield turns
    turns.close()


class Gate:
    """A job that says when it began and waits until it may end."""

    def __init__(self) -> None:
        """Begin shut."""
        self.began = threading.Event()
        self.opened = threading.Event()

    def job(self) -> str:
        """Wait for the gate."""
        self.began.set()
        assert self.opened.wait(30)
        return "done"

    async def entered(self) -> None:
        """Wait until the job runs."""
        assert await asyncio.to_thread(self.began.wait, 30)


async def test_one_account_s_second_job_waits_and_another_s_does_not(turns: Turns) -> None:
    """The second thread is free for others."""
    first, second = Gate(), Gate()
    second.opened.set()
    jobs = [asyncio.create_task(turns.run("a", gate.job)) for gate in (first, second)]
    await first.entered()
    assert await turns.run("b", lambda: "b's") == "b's"
    assert not second.began.is_set()
    first.opened.set()
    assert await asyncio.gather(*jobs) == ["done", "done"]


async def test_a_caller_that_leaves_keeps_its_turn_until_the_thread_is_free(turns: Turns) -> None:
    """Else asking and leaving would take every thread."""
    first, second = Gate(), Gate()
    second.opened.set()
    leaving = asyncio.create_task(turns.run("a", first.job))
    await first.entered()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    again = asyncio.create_task(turns.run("a", second.job))
    assert await turns.run("b", lambda: "b's") == "b's"
    assert not second.began.is_set()
    first.opened.set()
    assert await again == "done"


async def test_nothing_is_kept_of_an_account_without_jobs(turns: Turns) -> None:
    """Also of one whose job failed, or who left while waiting."""
    gate = Gate()
    running = asyncio.create_task(turns.run("a", gate.job))
    await gate.entered()
    waiting = asyncio.create_task(turns.run("a", gate.job))
    failing = asyncio.create_task(turns.run("b", lambda: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        await failing
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.opened.set()
    assert await running == "done"
    del running, waiting, failing
    for _ in range(3):
        await asyncio.sleep(0)
    assert turns.num_accounts == 0


async def test_after_the_close_a_job_fails_and_so_does_the_next(turns: Turns) -> None:
    """None waits for ever behind another."""
    turns.close()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await turns.run("a", lambda: "never")
