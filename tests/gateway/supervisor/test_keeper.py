"""Restarts of one child, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.supervisor.child import ChildSpec
from gateway.supervisor.keeper import Keeper
from gateway.supervisor.settings import Runtime, SupervisorSettings

pytestmark = pytest.mark.anyio
MakeSpec = Callable[..., ChildSpec]


@dataclass
class FakeTime:
    """Time that passes only in pauses; the pause after the last planned one never ends."""

    pauses: int
    now_s: float = 0.0
    slept_s: list[float] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def sleep(self, delay_s: float) -> None:
        """Notes the pause, and passes it at once."""
        self.slept_s.append(delay_s)
        self.now_s += delay_s
        if len(self.slept_s) == self.pauses:
            self.done.set()
            await asyncio.Event().wait()

    def runtime(self) -> Runtime:
        """This time, and chance that takes nothing off a pause."""
        return Runtime(clock=lambda: self.now_s, sleep=self.sleep, chance=lambda: 0.0)


async def keep_until_done(keeper: Keeper, done: asyncio.Event) -> None:
    """Runs the keeper until the event, then ends it."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(keeper.run())
        await done.wait()
        await keeper.stop()
        running.cancel()


@pytest.mark.parametrize("program", [("/bin/sh", "-c", "exit 7"), ("/no/such/program",)])
async def test_dying_child_is_started_again_with_growing_pauses(
    program: tuple[str, ...], child_spec: MakeSpec, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never given up; from the fifth quick death on, an error names command and exit."""
    time = FakeTime(pauses=7)
    changes: list[int] = []
    spec = replace(child_spec("worker-1"), argv=program)
    ended: list[str] = []
    bounds, changed = SupervisorSettings(), lambda: changes.append(1)
    keeper = Keeper(spec, bounds, time.runtime(), changed, ended.append)
    await keep_until_done(keeper, time.done)
    assert time.slept_s == [0.5, 1, 2, 4, 8, 10, 10]
    assert keeper.is_failing()
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert (len(warnings), len(errors)) == (4, 3)
    assert "failed 5 times in a row" in errors[0]
    assert program[0] in errors[0]
    if program[0] == "/bin/sh":
        assert "with exit code 7" in errors[0]
        assert len(changes) == 14
        assert ended == ["worker-1"] * 7


async def test_killed_child_is_started_again(
    child_spec: MakeSpec, events: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A death that nobody asked for is followed by a new process and one log line."""
    time = FakeTime(pauses=2)
    keeper = Keeper(child_spec("worker-1"), SupervisorSettings(), time.runtime(), lambda: None)

    async def kill_twice() -> None:
        for count in (1, 2):
            line = await events.seen("worker-1 started", count)
            os.kill(int(line.split()[2]), signal.SIGKILL)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kill_twice())
        await keep_until_done(keeper, time.done)
    assert caplog.text.count("ended by signal 9") == 2


async def test_asked_end_is_not_a_death(
    child_spec: MakeSpec, events: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A child that leaves because it was asked to is not started again, nor complained about."""
    time = FakeTime(pauses=1)
    keeper = Keeper(child_spec("worker-1"), SupervisorSettings(), time.runtime(), lambda: None)
    running = asyncio.create_task(keeper.run())
    await events.seen("worker-1 started")
    await keeper.stop()
    async with asyncio.timeout(20):
        await running
    assert time.slept_s == []
    assert caplog.records == []
    assert keeper.child is None


async def test_retired_keeper_lets_its_child_die(child_spec: MakeSpec, events: Any) -> None:
    """In the middle of a drain nothing is started again."""
    time = FakeTime(pauses=1)
    keeper = Keeper(child_spec("worker-1"), SupervisorSettings(), time.runtime(), lambda: None)
    running = asyncio.create_task(keeper.run())
    line = await events.seen("worker-1 started")
    keeper.retire()
    os.kill(int(line.split()[2]), signal.SIGKILL)
    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await running
    assert time.slept_s == []
