"""One child process: its session, its end, and what it may not leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.supervisor.child import Child, ChildSpec
from gateway.supervisor.errors import SpawnFailed

pytestmark = pytest.mark.anyio
MakeSpec = Callable[..., ChildSpec]


async def test_child_has_a_session_and_a_group_of_its_own(
    child_spec: MakeSpec, events: Any
) -> None:
    """A terminal's Ctrl-C reaches the supervisor only, never its children."""
    child = Child.spawn(child_spec("worker-1"))
    line = await events.seen("worker-1 started")
    assert line == f"worker-1 started {child.pid} group={child.pid} session={child.pid}"
    assert await child.stop() == 0


async def test_deaf_child_is_killed_after_its_grace(child_spec: MakeSpec, events: Any) -> None:
    """A child that ignores SIGTERM gets SIGKILL when the grace is over."""
    child = Child.spawn(child_spec("worker-1", "deaf", grace_s=0.2))
    await events.seen("worker-1 started")
    assert await child.stop() == -signal.SIGKILL
    assert events.starting("worker-1 ignored")


@pytest.mark.parametrize("how", ["stop", "death"])
async def test_what_a_child_started_does_not_outlive_it(
    how: str, child_spec: MakeSpec, events: Any, waiter: Any, is_gone: Callable[[int], bool]
) -> None:
    """The rest of the process group ends with the child, however the child ended."""
    child = Child.spawn(child_spec("worker-1", "parent"))
    grandchild = int((await events.seen("worker-1 grandchild")).split()[-1])
    await events.seen("worker-1 started")
    if how == "stop":
        await child.stop()
    else:
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
    await waiter.until_async(lambda: is_gone(grandchild), "the grandchild ends")


async def test_signals_after_the_end_do_nothing(child_spec: MakeSpec) -> None:
    """Once reaped, the pid may be anybody's: no signal is sent to it."""
    child = Child.spawn(replace(child_spec("worker-1"), argv=("/bin/true",)))
    assert await child.wait() == 0
    child.pid = os.getpid()
    child.signal(signal.SIGKILL)
    child.kill()
    assert await child.stop() == 0


async def test_cancelled_wait_leaves_the_child_waitable(child_spec: MakeSpec, events: Any) -> None:
    """Giving up one wait does not lose the exit status for the next."""
    child = Child.spawn(child_spec("worker-1"))
    await events.seen("worker-1 started")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await child.wait()
    assert await child.stop() == 0


async def test_missing_program_is_an_error_that_names_it(child_spec: MakeSpec) -> None:
    """The message says which program cannot be started, and does not print the environment."""
    spec = replace(child_spec("worker-1"), argv=("/no/such/program",), env={"KEY": "secret"})
    with pytest.raises(SpawnFailed, match=r"worker-1 cannot be started.*'/no/such/program'"):
        Child.spawn(spec)
    assert "secret" not in repr(spec)


async def test_child_sees_its_own_environment_only(child_spec: MakeSpec) -> None:
    """The environment is what the spec says, nothing of the supervisor's."""
    shell = ("/bin/sh", "-c", '[ "$GIVEN" = yes ] && [ -z "$HOME" ]')
    child = Child.spawn(replace(child_spec("worker-1"), argv=shell, env={"GIVEN": "yes"}))
    assert await child.wait() == 0


async def test_without_pidfd_a_child_is_still_waited_for(
    child_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systems that cannot watch a process by descriptor look again and again instead."""
    monkeypatch.setattr(Child, "_open_pidfd", lambda self: None)
    child = Child.spawn(replace(child_spec("worker-1"), argv=("/bin/sh", "-c", "exit 3")))
    assert await child.wait() == 3
