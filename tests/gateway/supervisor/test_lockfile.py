"""Who may use a data folder, and what the lock file tells others."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.supervisor.child import Child, ChildSpec
from gateway.supervisor.claim import claim_data_folder
from gateway.supervisor.errors import AlreadyRunning, DataFolderUnusable
from gateway.supervisor.lockfile import ChildEntry, LockFile, LockState, lock_path, read_lock
from gateway.supervisor.processes import boot_id, start_ticks
from gateway.supervisor.settings import SupervisorSettings

pytestmark = pytest.mark.anyio
MakeSpec = Callable[..., ChildSpec]


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours, leading a group of its own."""
    process = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def leave_behind(data_dir: Path, *children: ChildEntry, boot: str | None = None) -> None:
    """Writes the lock file of an owner that was killed."""
    lock = LockFile.try_take(data_dir, "serve")
    assert lock is not None
    lock._write(replace(lock.state, pid=2**22, children=children, boot=boot or boot_id()))
    os.close(lock._descriptor)


def entry(pid: int, ticks: int | None, end_signal: int = signal.SIGKILL) -> ChildEntry:
    """A child of an earlier run."""
    return ChildEntry("worker-1", "worker", pid, ticks, end_signal, None)


async def test_lock_names_owner_and_children_to_readers_without_the_lock(
    data_dir: Path, child_spec: MakeSpec
) -> None:
    """Anybody can read who runs, since when, where and in which versions."""
    async with claim_data_folder(data_dir) as lock:
        socket = data_dir / "engine-a.sock"
        child = Child.spawn(replace(child_spec("engine-a"), socket=socket))
        lock.set_children([child])
        lock.update(host="127.0.0.1", port=8080, versions={"tollway": "1"})
        lock.update(announced=True)
        state = read_lock(lock_path(data_dir))
        assert state is not None
        assert state.is_live()
        assert (state.pid, state.kind, state.announced) == (os.getpid(), "serve", True)
        assert (state.host, state.port) == ("127.0.0.1", 8080)
        assert state.versions == {"tollway": "1"}
        assert state.children == (
            ChildEntry("engine-a", "engine", child.pid, start_ticks(child.pid), 9, str(socket)),
        )
        assert state.socket_of("engine-a") == socket
        assert json.loads(lock_path(data_dir).read_text())["pid"] == os.getpid()
        await child.stop()
        lock.set_children([])
    assert read_lock(lock_path(data_dir)) == LockState(boot=boot_id())


async def test_data_folder_and_lock_are_private(data_dir: Path) -> None:
    """The folder is made with mode 0700, the file with 0600."""
    async with claim_data_folder(data_dir):
        assert stat.S_IMODE(lock_path(data_dir).parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(lock_path(data_dir).stat().st_mode) == 0o600


async def test_second_server_is_refused_with_what_to_do(data_dir: Path) -> None:
    """The error names the pid that has the folder, how to stop it, and the other way out."""
    async with claim_data_folder(data_dir):
        with pytest.raises(AlreadyRunning, match=f"'kill {os.getpid()}'.*--data") as caught:
            async with claim_data_folder(data_dir):
                pytest.fail("two owners")
    assert caught.value.pid == os.getpid()
    async with claim_data_folder(data_dir):
        pass


async def test_server_waits_for_a_command_but_not_for_ever(data_dir: Path) -> None:
    """A command that holds the folder is waited for, then named."""
    settings = SupervisorSettings(lock_wait_s=0.1)
    async with claim_data_folder(data_dir, "command"):
        with pytest.raises(AlreadyRunning, match=r"waited 0\.1 s"):
            async with claim_data_folder(data_dir, settings=settings):
                pytest.fail("two owners")


async def test_rewriting_keeps_the_inode_and_so_the_lock(data_dir: Path) -> None:
    """However often it is rewritten, no second owner gets in."""
    async with claim_data_folder(data_dir) as lock:
        before = lock_path(data_dir).stat().st_ino
        lock.update(versions={"padding": "x" * 9000})
        lock.update(versions={})
        assert lock_path(data_dir).stat().st_ino == before
        assert LockFile.try_take(data_dir, "serve") is None
        state = read_lock(lock_path(data_dir))
        assert state is not None
        assert state.versions == {}


async def test_children_do_not_inherit_the_lock(data_dir: Path, child_spec: MakeSpec) -> None:
    """A child that outlives its supervisor does not keep the folder locked."""
    async with claim_data_folder(data_dir):
        child = Child.spawn(child_spec("worker-1"))
    assert LockFile.try_take(data_dir, "serve") is not None
    await child.stop()


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[: len(text) // 2], lambda text: text.replace(b'"port": 8', b'"port": 9')],
)
async def test_torn_text_is_not_believed(data_dir: Path, damage: Callable[[bytes], bytes]) -> None:
    """Half a text, or one mixed from two, reads as nothing rather than as something false."""
    async with claim_data_folder(data_dir) as lock:
        lock.update(port=80)
        whole = lock_path(data_dir).read_bytes()
        lock_path(data_dir).write_bytes(damage(whole.rstrip()))
        assert read_lock(lock_path(data_dir)) is None
        lock.update(port=81)
        state = read_lock(lock_path(data_dir))
        assert state is not None
        assert state.port == 81


async def test_torn_read_is_tried_again(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that comes in the middle of a write gets the text after it."""
    async with claim_data_folder(data_dir) as lock:
        path = lock_path(data_dir)
        path.write_bytes(b'{"pid": 1, "chil')
        monkeypatch.setattr("time.sleep", lambda _: lock.update(port=82))
        state = read_lock(path)
    assert state is not None
    assert state.port == 82


async def test_orphan_is_ended_before_the_next_owner_starts(
    data_dir: Path, stranger: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """What a killed supervisor left running is ended, and said."""
    leave_behind(data_dir, entry(stranger.pid, start_ticks(stranger.pid)))
    async with claim_data_folder(data_dir) as lock:
        assert lock.state.children == ()
        assert stranger.wait(timeout=5) == -signal.SIGKILL
    assert f"ending worker-1 (pid {stranger.pid})" in caplog.text


async def test_orphan_that_ignores_a_polite_request_is_killed(data_dir: Path, events: Any) -> None:
    """A Valkey that does not leave within its grace gets SIGKILL."""
    deaf = subprocess.Popen(  # noqa: ASYNC220  a fork of a few milliseconds
        ["/bin/sh", "-c", f"trap '' TERM; echo deaf > {events.path}; sleep 600"],
        start_new_session=True,
    )
    await events.seen("deaf")
    leave_behind(data_dir, entry(deaf.pid, start_ticks(deaf.pid), signal.SIGTERM))
    settings = SupervisorSettings(orphan_stop_grace_s=0.1)
    async with claim_data_folder(data_dir, settings=settings):
        assert deaf.wait(timeout=5) == -signal.SIGKILL


@pytest.mark.parametrize("what", ["other start time", "other boot", "no start time"])
async def test_reused_pid_is_never_signalled(
    what: str, data_dir: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """A pid alone proves nothing: start time and boot must fit as well."""
    ticks = start_ticks(stranger.pid)
    assert ticks is not None
    match what:
        case "other start time":
            leave_behind(data_dir, entry(stranger.pid, ticks - 1))
        case "other boot":
            leave_behind(data_dir, entry(stranger.pid, ticks), boot="another")
        case _:
            leave_behind(data_dir, entry(stranger.pid, None))
    async with claim_data_folder(data_dir) as lock:
        assert lock.state.children == ()
    assert stranger.poll() is None


async def test_folder_that_is_a_file_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    """The message says which folder, what is wrong, and --data."""
    (tmp_path / "data").write_text("")
    with pytest.raises(DataFolderUnusable, match="--data"):
        LockFile.try_take(tmp_path / "data", "serve")


def test_start_time_survives_a_strange_process_name(
    tmp_path: Path, waiter: Any, is_gone: Callable[[int], bool]
) -> None:
    """Parentheses and spaces in a program's name do not shift the fields."""
    program = tmp_path / "a) S (b"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o700)
    process = subprocess.Popen([str(program), "600"])
    ticks = start_ticks(process.pid)
    mine = start_ticks(os.getpid())
    assert ticks is not None
    assert mine is not None
    assert ticks >= mine
    process.kill()
    waiter.until(lambda: is_gone(process.pid), "a process that nobody reaped counts as gone")
    process.wait()
