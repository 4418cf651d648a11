"""What a reload does to the children: a group beside the old one, more of them, fewer of them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.supervisor.child import ChildSpec
from gateway.supervisor.claim import claim_data_folder
from gateway.supervisor.errors import StartFailed
from gateway.supervisor.living import Group
from gateway.supervisor.settings import SupervisorSettings
from gateway.supervisor.tree import Supervisor

pytestmark = pytest.mark.anyio
MakeSpec = Callable[..., ChildSpec]
FAST = SupervisorSettings(restart_first_delay_s=0.01, restart_max_delay_s=0.01)
LONG_S = 600.0


@asynccontextmanager
async def one_worker(data_dir: Path, spec: ChildSpec, events: Any) -> AsyncIterator[Supervisor]:
    """A supervisor of one worker that runs."""
    async with claim_data_folder(data_dir) as lock:
        supervisor = Supervisor([Group("workers", (spec,))], lock, settings=FAST)
        running = asyncio.create_task(supervisor.run())
        try:
            async with asyncio.timeout(30):
                await events.seen(f"{spec.name} started")
                yield supervisor
        finally:
            supervisor.end_now()
            await asyncio.wait({running})
        assert supervisor.pids() == {}


def lingering(spec: ChildSpec, events: Any) -> ChildSpec:
    """A child that takes SIGUSR1 for a hint, and leaves only when it is stopped."""
    says = f"echo {spec.name} started >> {events.path}"
    script = f"trap 'echo {spec.name} hint >> {events.path}' USR1; {says}; "
    loop = "while :; do sleep 0.02; done"
    return replace(spec, argv=("/bin/sh", "-c", script + loop))


async def test_what_is_removed_outlives_what_is_leaving(
    data_dir: Path, child_spec: MakeSpec, events: Any, waiter: Any
) -> None:
    """Old workers may still ask an engine; the next replacement ends both, before it begins."""
    old, new, engine = child_spec("worker-1"), child_spec("worker-2"), child_spec("engine-1")
    async with one_worker(data_dir, lingering(old, events), events) as supervisor:
        living = supervisor.living
        await living.add(Group("engines", (engine,)))
        await events.seen("engine-1 started")
        await living.replace(Group("workers", (new,)), LONG_S)
        living.remove_later(["engine-1"])
        await events.seen("worker-1 hint")
        await events.seen("worker-2 started")
        assert sorted(supervisor.pids()) == ["engine-1", "worker-1", "worker-2"]
        before = supervisor.pids()["engine-1"]

        await living.add(Group("engines", (engine,)))
        assert len(events.starting("engine-1 stopped")) == 1
        await events.seen("engine-1 started", 2)
        assert sorted(supervisor.pids()) == ["engine-1", "worker-2"]
        assert supervisor.pids()["engine-1"] != before


async def test_what_was_added_says_when_it_has_ended(
    data_dir: Path, child_spec: MakeSpec, events: Any, waiter: Any
) -> None:
    """Once is enough, be it that it lives again; what cannot be started at all has ended, too."""
    gone = replace(child_spec("engine-2"), argv=("/nowhere",))
    async with one_worker(data_dir, child_spec("worker-1"), events) as supervisor:
        ended = await supervisor.living.add(Group("engines", (child_spec("engine-1"),)))
        await events.seen("engine-1 started")
        assert not ended()
        supervisor.living.signal("engines", signal.SIGKILL)
        await waiter.until_async(ended, "its end is seen")
        await events.seen("engine-1 started", 2)
        assert ended()
        never = await supervisor.living.add(Group("engines", (gone,)))
        await waiter.until_async(never, "its failure is seen")


async def test_a_replacement_that_fails_leaves_the_old_group(
    data_dir: Path, child_spec: MakeSpec, events: Any
) -> None:
    """And nothing of its own."""

    async def fail(_: Callable[[], bool]) -> None:
        await events.seen("worker-2 started")
        raise StartFailed("not ready")

    async with one_worker(data_dir, child_spec("worker-1"), events) as supervisor:
        before = supervisor.pids()
        with pytest.raises(StartFailed, match="not ready"):
            await supervisor.living.replace(
                Group("workers", (child_spec("worker-2"),), ready=fail), LONG_S
            )
        assert supervisor.pids() == before


async def test_nothing_is_started_once_everything_is_to_stop(
    data_dir: Path, child_spec: MakeSpec, events: Any
) -> None:
    """A reload that is under way when the drain begins leaves no child behind."""
    async with one_worker(data_dir, child_spec("worker-1"), events) as supervisor:
        supervisor.begin_drain()
        for start in (supervisor.living.start, supervisor.living.add):
            with pytest.raises(StartFailed, match="everything is to stop"):
                await start(Group("engines", (child_spec("engine-1"),)))
        await supervisor.drain()
    assert not events.starting("engine-1")
