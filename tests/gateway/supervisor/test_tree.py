"""The whole tree: order, restarts, drains, and that nothing outlives a killed supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.supervisor.child import ChildSpec
from gateway.supervisor.claim import claim_data_folder
from gateway.supervisor.embedded import embedded_valkey
from gateway.supervisor.errors import StartFailed, SupervisorError
from gateway.supervisor.groups import valkey_group
from gateway.supervisor.living import Group
from gateway.supervisor.lockfile import LockFile, lock_path, read_lock
from gateway.supervisor.settings import SupervisorSettings
from gateway.supervisor.tree import Hooks, Supervisor

pytestmark = pytest.mark.anyio
MakeSpec = Callable[..., ChildSpec]
FAST = SupervisorSettings(restart_first_delay_s=0.01, restart_max_delay_s=0.01)


@asynccontextmanager
async def tree(
    data_dir: Path, *groups: Group, hooks: Hooks | None = None
) -> AsyncIterator[tuple[Supervisor, asyncio.Task[int]]]:
    """A supervisor running in a task; everything has ended afterwards."""
    async with claim_data_folder(data_dir) as lock:
        supervisor = Supervisor(groups, lock, settings=FAST, hooks=hooks)
        running = asyncio.create_task(supervisor.run())
        try:
            async with asyncio.timeout(30):
                yield supervisor, running
        finally:
            supervisor.end_now()
            await asyncio.wait({running})


def test_children_die_when_the_supervisor_is_killed(
    server: Any, waiter: Any, is_gone: Callable[[int], bool]
) -> None:
    """After kill -9 of the supervisor none of its children lives on, Valkey included."""
    pids = server.start_and_wait()
    assert sorted(pids) == ["engine-1", "valkey", "worker-1", "worker-2"]
    server.process.kill()
    waiter.until(lambda: all(is_gone(pid) for pid in pids.values()), "all children end")
    assert not server.events.starting("worker-1 stopped")
    log = (server.data_dir / "valkey" / "valkey.log").read_text()
    assert "ready to exit" in log


async def test_drain_stops_workers_then_engines_then_valkey(
    server: Any, is_gone: Callable[[int], bool]
) -> None:
    """Workers and engines can still settle while they leave; the exit code is 0."""
    pids = server.start_and_wait()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0
    stopped = [line for line in server.events.lines() if " stopped" in line]
    assert stopped[-1] == "engine-1 stopped valkey=True"
    assert sorted(stopped[:-1]) == [f"worker-{i} stopped valkey=True" for i in (1, 2)]
    assert all(is_gone(pid) for pid in pids.values())
    assert server.pids() == {}
    assert not server.state().is_live()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_second_signal_ends_at_once(
    number: int, server: Any, is_gone: Callable[[int], bool]
) -> None:
    """Children that ignore the drain are killed, and Valkey still closes its file."""
    pids = server.start_and_wait("deaf")
    server.process.send_signal(number)
    await server.events.seen("worker-2 ignored")
    before_s = time.monotonic()
    server.process.send_signal(number)
    assert server.process.wait(timeout=20) == 1
    assert time.monotonic() - before_s < 5  # the grace would be 30
    assert all(is_gone(pid) for pid in pids.values())
    assert "ready to exit" in (server.data_dir / "valkey" / "valkey.log").read_text()


async def test_second_server_on_the_same_folder_is_refused(server: Any) -> None:
    """It ends at once with exit 1 and says who has the folder; the first is untouched."""
    pids = server.start_and_wait()
    first = server.process
    second = server.start()
    assert second.wait(timeout=20) == 1
    assert f"pid {first.pid}" in server.log.read_text()
    assert server.pids() == pids
    server.process = first


async def test_start_after_killing_everything_ends_orphans_and_keeps_the_data(
    server: Any, ask: Any, waiter: Any, is_gone: Callable[[int], bool]
) -> None:
    """A frozen orphan cannot keep the next server out, and what was written is still there."""
    pids = server.start_and_wait()
    async with embedded_valkey(server.data_dir) as socket_path:
        assert await ask(socket_path, "SET k 42") == b"+OK\r\n"
    os.kill(pids["valkey"], signal.SIGSTOP)  # SIGTERM from the kernel now waits
    server.process.kill()
    server.process.wait()
    for name in ("engine-1", "worker-1", "worker-2"):
        await waiter.until_async(lambda pid=pids[name]: is_gone(pid), name)
    assert not is_gone(pids["valkey"])
    settings = SupervisorSettings(orphan_stop_grace_s=0.2)
    async with claim_data_folder(server.data_dir, settings=settings):
        assert is_gone(pids["valkey"])
    again = server.start_and_wait()
    assert not set(again.values()) & set(pids.values())
    assert await ask(server.data_dir / "valkey.sock", "GET k") == b"42\r\n"


async def test_killed_children_are_started_again_and_the_lock_says_so(
    server: Any, ask: Any, waiter: Any
) -> None:
    """A worker, and even Valkey, comes back by itself, under a new pid that others can read."""
    pids = server.start_and_wait()
    assert await ask(server.data_dir / "valkey.sock", "SET k 42") == b"+OK\r\n"
    for name in ("worker-1", "valkey"):
        os.kill(pids[name], signal.SIGKILL)

    def back() -> dict[str, int] | None:
        now = server.pids()
        new = all(now.get(name, pids[name]) != pids[name] for name in ("worker-1", "valkey"))
        return now if new and len(now) == 4 else None

    now = await waiter.until_async(back, "both are back")
    assert (now["worker-2"], now["engine-1"]) == (pids["worker-2"], pids["engine-1"])
    await server.events.seen("worker-1 started", 2)
    async with embedded_valkey(server.data_dir) as socket_path:
        assert await ask(socket_path, "GET k") == b"42\r\n"


async def test_steps_between_groups_run_in_order(
    data_dir: Path, child_spec: MakeSpec, events: Any, ask: Any
) -> None:
    """`on_ready` finds a Valkey that answers, and no worker started before it was done."""
    seen: list[str] = []

    async def prepare() -> None:
        assert await ask(data_dir / "valkey.sock", "SET prepared 1") == b"+OK\r\n"
        seen.append(f"workers started: {len(events.starting('worker'))}")

    groups = [
        valkey_group(data_dir, {}, on_ready=prepare),
        Group("workers", (child_spec("worker-1"),)),
    ]
    hooks = Hooks(on_drain=lambda: seen.append("draining"))
    async with tree(data_dir, *groups, hooks=hooks) as (supervisor, running):
        await events.seen("worker-1 started")
        assert sorted(supervisor.pids()) == ["valkey", "worker-1"]
        supervisor.set_announced()
        state = read_lock(lock_path(data_dir))
        assert state is not None
        assert state.announced
        await supervisor.drain()
        assert await running == 0
    assert seen == ["workers started: 0", "draining"]


async def test_failed_step_stops_what_was_started(
    data_dir: Path, child_spec: MakeSpec, events: Any
) -> None:
    """An error between groups reaches the caller, and no process is left."""

    async def fail() -> None:
        await events.seen("engine-1 started")
        raise LookupError("no such account")

    groups = [
        Group("engines", (child_spec("engine-1"),), on_ready=fail),
        Group("workers", (child_spec("worker-1"),)),
    ]
    async with tree(data_dir, *groups) as (supervisor, running):
        with pytest.raises(LookupError):
            await running
        assert supervisor.pids() == {}
    assert events.starting("engine-1 stopped")
    assert not events.starting("worker-1")


async def test_valkey_that_keeps_dying_fails_the_start(data_dir: Path) -> None:
    """A start that cannot succeed ends with the server's own words, not with a long wait."""
    async with embedded_valkey(data_dir):
        pass
    (manifest,) = (data_dir / "valkey" / "appendonlydir").glob("*.manifest")
    manifest.write_text("not a manifest\n")
    async with tree(data_dir, valkey_group(data_dir, {})) as (_, running):
        with pytest.raises(StartFailed, match=r"(?s)ends before it answers.*manifest"):
            await running


async def test_child_that_dies_in_the_drain_is_not_started_again(
    data_dir: Path, child_spec: MakeSpec, events: Any, waiter: Any
) -> None:
    """While workers finish, a dead engine stays dead."""
    groups = [
        Group("engines", (child_spec("engine-1"),)),
        Group("workers", (child_spec("worker-1", "deaf", 30.0),)),
    ]
    async with tree(data_dir, *groups) as (supervisor, running):
        await events.seen("worker-1 started")
        await events.seen("engine-1 started")
        pids = supervisor.pids()
        supervisor.begin_drain()
        await events.seen("worker-1 ignored")
        os.kill(pids["engine-1"], signal.SIGKILL)
        await waiter.until_async(lambda: "engine-1" not in supervisor.pids(), "engine ends")
        os.kill(pids["worker-1"], signal.SIGKILL)
        assert await running == 0
    assert len(events.starting("engine-1 started")) == 1
    assert len(events.starting("worker-1 started")) == 1


async def test_drain_ends_a_pause_between_restarts(data_dir: Path, child_spec: MakeSpec) -> None:
    """A child that is just not running holds up nothing and does not come back."""
    spec = replace(child_spec("worker-1"), argv=("/bin/false",))
    async with claim_data_folder(data_dir) as lock:
        settings = SupervisorSettings(restart_first_delay_s=600.0, restart_max_delay_s=600.0)
        supervisor = Supervisor([Group("workers", (spec,))], lock, settings=settings)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(supervisor.run())
            while not lock.state.children:  # noqa: ASYNC110  the file is the only sign of a start
                await asyncio.sleep(0)
            while lock.state.children:  # noqa: ASYNC110  and of the end
                await asyncio.sleep(0)
            await supervisor.drain()
        assert running.result() == 0


async def test_drain_in_the_middle_of_the_start_is_heard(
    data_dir: Path, child_spec: MakeSpec, events: Any
) -> None:
    """A signal while a group still gets ready stops the start; later groups never begin."""

    async def never(is_failing: Callable[[], bool]) -> None:
        await asyncio.Event().wait()

    groups = [
        Group("engines", (child_spec("engine-1"),), ready=never),
        Group("workers", (child_spec("worker-1"),)),
    ]
    async with tree(data_dir, *groups) as (_, running):
        await events.seen("engine-1 started")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
    assert events.starting("engine-1 stopped")
    assert not events.starting("worker-1")


async def test_hangup_calls_its_hook_and_can_be_passed_on(
    data_dir: Path, child_spec: MakeSpec, waiter: Any, events: Any
) -> None:
    """SIGHUP never ends the server; the hook may signal a group."""
    spec = replace(
        child_spec("worker-1"),
        argv=(
            "/bin/sh",
            "-c",
            f"trap 'echo reloaded >> {events.path}' HUP; echo up >> {events.path};"
            "while :; do sleep 0.02; done",
        ),
    )
    calls: list[int] = []

    async def called() -> None:
        calls.append(1)

    hooks = Hooks(on_hangup=called)
    async with tree(data_dir, Group("workers", (spec,)), hooks=hooks) as (supervisor, running):
        await events.seen("up")
        os.kill(os.getpid(), signal.SIGHUP)
        await waiter.until_async(lambda: calls, "the hook is called")
        supervisor.living.signal("workers", signal.SIGHUP)
        await events.seen("reloaded")
        assert not running.done()


async def test_cancelled_run_leaves_no_child(
    data_dir: Path, child_spec: MakeSpec, events: Any, is_gone: Callable[[int], bool]
) -> None:
    """However `run` ends, its children have ended before."""
    async with tree(data_dir, Group("workers", (child_spec("worker-1", "deaf"),))) as (
        supervisor,
        running,
    ):
        await events.seen("worker-1 started")
        pid = supervisor.pids()["worker-1"]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert is_gone(pid)


async def test_unwritable_lock_file_does_not_end_the_children(
    data_dir: Path,
    child_spec: MakeSpec,
    events: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A full disk costs the record, not the service."""

    def full(self: LockFile, children: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(LockFile, "set_children", full)
    monkeypatch.setattr("gateway.supervisor.claim.clear_orphans", no_orphans)
    async with tree(data_dir, Group("workers", (child_spec("worker-1"),))) as (_, running):
        await events.seen("worker-1 started")
        assert not running.done()
    assert "lock file cannot be written" in caplog.text


async def no_orphans(*_: object) -> None:
    """Nothing to end."""


async def test_child_names_must_differ(data_dir: Path, child_spec: MakeSpec) -> None:
    """Two children of one name would hide each other in the lock file."""
    spec = child_spec("worker-1")
    async with claim_data_folder(data_dir) as lock:
        with pytest.raises(SupervisorError, match="worker-1"):
            Supervisor([Group("workers", (spec, spec))], lock)
