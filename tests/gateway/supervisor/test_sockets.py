"""Socket paths that the kernel accepts, and the listeners of workers that share a port."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.supervisor.errors import DataFolderUnusable, ListenerFailed, SocketPathTooLong
from gateway.supervisor.sockets import (
    MAX_SOCKET_PATH_BYTES,
    bind_listener,
    bind_listeners,
    bind_unix_listener,
    engine_socket_name,
    remove_short_folder,
    short_socket_path,
    worker_socket_name,
)


def test_engine_socket_name_has_no_slash() -> None:
    """A model's slashes become `--`."""
    assert engine_socket_name("local/a/b") == "engine-local--a--b.sock"


def test_short_path_stays_in_the_data_folder(data_dir: Path) -> None:
    """The usual place is the data folder."""
    assert short_socket_path(data_dir, "valkey.sock") == data_dir / "valkey.sock"


def test_long_path_moves_to_a_private_temporary_folder(data_dir: Path) -> None:
    """Over 100 bytes the socket lies in a 0700 folder, always the same for a data folder."""
    deep = data_dir / ("d" * MAX_SOCKET_PATH_BYTES)
    path = short_socket_path(deep, "valkey.sock")
    assert path.name == "valkey.sock"
    assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert short_socket_path(deep, "valkey.sock") == path
    assert short_socket_path(data_dir / ("e" * 100), "valkey.sock") != path
    long_name = short_socket_path(deep, engine_socket_name("m" * 200))
    assert long_name.parent == path.parent
    assert len(os.fsencode(long_name)) <= MAX_SOCKET_PATH_BYTES
    remove_short_folder(deep)
    remove_short_folder(data_dir / ("e" * 100))
    assert not path.parent.exists()


def test_temporary_folder_open_to_others_is_refused(data_dir: Path) -> None:
    """A folder that somebody else may have prepared is not used."""
    deep = data_dir / ("d" * MAX_SOCKET_PATH_BYTES)
    folder = short_socket_path(deep, "valkey.sock").parent
    folder.chmod(0o777)
    try:
        with pytest.raises(SocketPathTooLong, match="0700"):
            short_socket_path(deep, "valkey.sock")
        remove_short_folder(deep)
        assert folder.exists()
    finally:
        shutil.rmtree(folder)


def test_listener_is_handed_down_by_descriptor() -> None:
    """A child accepts on the listener, which stays bound when that child is gone."""
    listener = bind_listener("127.0.0.1", 0)
    assert listener.get_inheritable()
    assert not listener.getblocking()
    host, port = listener.getsockname()
    serve = (
        f"import socket; s = socket.socket(fileno={listener.fileno()}); s.setblocking(True);"
        "s.accept()[0].sendall(b'hello')"
    )
    for _ in range(2):  # the second connects before its server exists
        with socket.create_connection((host, port), timeout=10) as client:
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", serve],
                pass_fds=(listener.fileno(),),
                check=True,
                timeout=10,
            )
            assert client.recv(16) == b"hello"
    listener.close()


def test_taken_port_is_an_error_that_names_the_option() -> None:
    """The message says which port, and --port."""
    with bind_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ListenerFailed, match=f"port {port} on '127.0.0.1' is taken.*--port"):
            bind_listener("127.0.0.1", port)


def accepted(listener: socket.socket) -> int:
    """Take everything that waits in one queue."""
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_each_worker_has_a_queue_of_its_own_on_the_same_port() -> None:
    """Connections are spread over all of them, and none is lost."""
    listeners = bind_listeners("127.0.0.1", 0, 3)
    address = listeners[0].getsockname()
    assert {listener.getsockname() for listener in listeners} == {address}
    assert all(one.get_inheritable() and not one.getblocking() for one in listeners)
    with ExitStack() as clients:
        for _ in range(300):
            clients.enter_context(socket.create_connection(address, timeout=10))
        waiting = [accepted(listener) for listener in listeners]
    assert sum(waiting) == 300
    assert min(waiting) > 50
    for listener in listeners:
        listener.close()


def test_one_worker_has_its_port_alone() -> None:
    """No option opens the port to others."""
    (only,) = bind_listeners("127.0.0.1", 0, 1)
    with only:
        assert not only.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


@pytest.mark.parametrize("held", [1, 2])
@pytest.mark.parametrize("wanted", [1, 2])
def test_no_two_servers_share_a_port(held: int, wanted: int) -> None:
    """Another server of the same user is refused, although both let their workers share."""
    listeners = bind_listeners("127.0.0.1", 0, held)
    port = listeners[0].getsockname()[1]
    with pytest.raises(ListenerFailed, match=f"port {port} on '127.0.0.1' is taken.*--port"):
        bind_listeners("127.0.0.1", port, wanted)
    for listener in listeners:
        listener.close()
    for listener in bind_listeners("127.0.0.1", port, wanted):
        listener.close()


def test_a_unix_listener_takes_the_place_of_one_left_behind(data_dir: Path) -> None:
    """Only its owner may connect; a path that cannot be had is an error that names the option."""
    data_dir.mkdir()
    path = data_dir / worker_socket_name("worker-1")
    bind_unix_listener(path).close()
    with bind_unix_listener(path) as listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client.connect(str(path))
        assert accepted(listener) == 1
    with pytest.raises(DataFolderUnusable, match="--data"):
        bind_unix_listener(data_dir / "none" / "worker-1.sock")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_foreign_host_is_an_error_that_names_the_option(host: str) -> None:
    """An address of another machine, or none at all, points at --host."""
    with pytest.raises(ListenerFailed, match="--host"):
        bind_listener(host, 0)
