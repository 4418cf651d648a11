"""Where the Unix sockets lie, and the TCP listeners of one port, one for each worker."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from gateway.supervisor.errors import DataFolderUnusable, ListenerFailed, SocketPathTooLong

MAX_SOCKET_PATH_BYTES = 100  # the kernel takes 107, macOS 103 (unix(7), unix(4))
LISTEN_BACKLOG = 2048
VALKEY_SOCKET = "valkey.sock"
TOKENIZER_SOCKET = "tokenizer.sock"


def worker_socket_name(worker: str) -> str:
    """The file name of a worker's own socket: `worker-1` gives `worker-1.sock`."""
    return f"{worker}.sock"


def engine_socket_name(model: str) -> str:
    """The socket's file name for a model: `local/a` gives `engine-local--a.sock`."""
    return f"engine-{model.replace('/', '--')}.sock"


def short_socket_path(data_dir: Path, name: str) -> Path:
    """An absolute path for a Unix socket that the kernel accepts.

    Always the same for the same data folder and name: `DATA/name`, or when that is over 100
    bytes the same name (a hash of it if need be) in a folder of the system's temporary
    directory, made with mode 0700.

    Raises:
        SocketPathTooLong: The temporary directory's path is too long as well, or somebody
            else owns the folder's name there.
    """
    usual = data_dir.absolute() / name
    if _fits(usual):
        return usual
    folder = _short_folder(data_dir)
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    for path in (folder / name, folder / f"{digest}.sock"):
        if _fits(path):
            _make_private(folder)
            return path
    raise SocketPathTooLong(
        f"the socket path {str(usual)!r} is over {MAX_SOCKET_PATH_BYTES} bytes, and so is "
        f"{str(folder)!r}: choose a shorter folder with --data or TMPDIR"
    )


def remove_short_folder(data_dir: Path) -> None:
    """Removes the temporary socket folder of a data folder that nobody uses any more."""
    folder = _short_folder(data_dir)
    if _is_private(folder):
        shutil.rmtree(folder, ignore_errors=True)


def bind_listener(host: str, port: int) -> socket.socket:
    """Binds the TCP socket that workers accept from.

    Non-blocking and inheritable: pass its `fileno()` to every worker, so that connections
    wait in the backlog while a worker restarts. Blocks for a name look-up of `host`.

    Args:
        host: A name or address of this machine; empty for all.
        port: 0 for any free one; `getsockname()` tells which.

    Raises:
        ListenerFailed: The port is taken or not allowed, or the host is not ours.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, OverflowError) as error:
        raise ListenerFailed(
            f"cannot listen on {host!r} port {port}: {error}; choose another with --host or --port"
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        _listen(listener, address)
    except OSError as error:
        listener.close()
        raise _listener_failed(host, port, error) from error
    return listener


def bind_listeners(host: str, port: int, count: int) -> tuple[socket.socket, ...]:
    """Binds one TCP socket for each of `count` workers, all on the same port.

    Each has a queue of its own (SO_REUSEPORT), over which the kernel spreads connections evenly
    by their addresses, and each is like `bind_listener`'s: who holds it keeps its queue, so that
    connections wait there while its worker restarts. One queue for all workers would wake all
    of them for each connection and give it to whoever is quickest: of 2,000 connections one of
    two idle workers took up to 70 in 100, with queues of their own never more than 51.

    The first socket is bound and listens without the option, which nobody else on the port
    survives, another Tollway included, and opens the port to the others only then. So there
    is no moment at which two servers can share a port.

    Where the kernel does not spread connections (anything but Linux), and for one worker, it is
    one socket, as often as there are workers.

    Args:
        host: As in `bind_listener`.
        port: As there; all get the same one.
        count: How many, at least 1.

    Raises:
        ListenerFailed: As `bind_listener`.
    """
    first = bind_listener(host, port)
    if count == 1 or sys.platform != "linux":
        return (first,) * count
    address = first.getsockname()
    with contextlib.ExitStack() as undo:
        undo.callback(first.close)
        listeners = [first]
        try:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            while len(listeners) < count:
                another = socket.socket(first.family, first.type, first.proto)
                undo.callback(another.close)
                another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                _listen(another, address)
                listeners.append(another)
        except OSError as error:
            raise _listener_failed(host, int(address[1]), error) from error
        undo.pop_all()
    return tuple(listeners)


def bind_unix_listener(path: Path) -> socket.socket:
    """Binds a Unix socket in place of one that an earlier run left; else as `bind_listener`.

    Only its owner may connect.

    Args:
        path: Short enough for the kernel, in a folder that is locked or private.

    Raises:
        DataFolderUnusable: The folder cannot be written.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listener.setblocking(False)
        listener.bind(str(path))
        path.chmod(0o600)  # before anyone can connect
        listener.listen(LISTEN_BACKLOG)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise DataFolderUnusable(
            f"the socket {str(path)!r} cannot be made: {error}; choose another folder with --data"
        ) from error
    return listener


def _listen(listener: socket.socket, address: Any) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    listener.bind(address)
    listener.listen(LISTEN_BACKLOG)
    listener.set_inheritable(True)


def _listener_failed(host: str, port: int, error: OSError) -> ListenerFailed:
    match error.errno:
        case errno.EADDRINUSE:
            text = (
                f"port {port} on {host!r} is taken: stop what listens there, "
                "or choose another port with --port"
            )
        case errno.EACCES:
            text = (
                f"port {port} on {host!r} needs rights that this process lacks: "
                "choose one above 1023 with --port"
            )
        case errno.EADDRNOTAVAIL:
            text = f"{host!r} is no address of this machine: choose another with --host"
        case _:
            text = f"cannot listen on {host!r} port {port}: {error}; change --host or --port"
    return ListenerFailed(text)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES


def _short_folder(data_dir: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tollway-{os.geteuid()}-{digest}"


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_private(folder):
        raise SocketPathTooLong(
            f"{str(folder)!r} is not a folder of ours with mode 0700: remove it, "
            "or choose a shorter folder with --data"
        )


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and stat.S_IMODE(status.st_mode) == 0o700
    )
