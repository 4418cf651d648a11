"""The workers of one server: their listeners, their command lines, and how each is asked."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from gateway import shared_metrics
from gateway.cli.common import base_url
from gateway.config import METRICS_DIR
from gateway.supervisor.child import ChildSpec
from gateway.supervisor.errors import DataFolderUnusable
from gateway.supervisor.sockets import (
    bind_listeners,
    bind_unix_listener,
    short_socket_path,
    worker_socket_name,
)

PROBE_S = 5.0
METRICS_FOLDER = "metrics"
WORKER = "worker-"
NEXT = "-next"
"""Of two generations that alternate."""


@dataclass(frozen=True, slots=True)
class Crew:
    """What the workers accept from, held here so that nothing is lost while one restarts.

    One worker has the port for itself. Of several each has a listener of its own on the port,
    the others' for what these leave waiting, a Unix socket, by which it alone can be asked
    whether it is ready, and a part in the metrics that all of them show.
    """

    listeners: tuple[socket.socket, ...]
    own: tuple[socket.socket, ...]
    """The Unix listeners; none for one worker."""

    metrics: Path | None
    """The folder of the metrics that all workers share; None for one worker."""

    host: str
    generation: str = ""
    """Stands behind each worker's name: after a reload two generations live side by side."""

    def successor(self, data: Path) -> Crew:
        """Return the next generation on the same port, each of it to be asked alone.

        Raises:
            DataFolderUnusable: the data folder cannot be written.
        """
        generation = "" if self.generation else NEXT
        own: list[socket.socket] = []
        for index in range(len(self.listeners)):
            path = short_socket_path(data, worker_socket_name(_name(index) + generation))
            own.append(bind_unix_listener(path))
        return replace(self, own=tuple(own), generation=generation)

    def names(self) -> list[str]:
        """Return the workers' names."""
        return [_name(index) + self.generation for index in range(len(self.listeners))]

    @property
    def port(self) -> int:
        """The port they serve."""
        return int(self.listeners[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where a client on this machine reaches one of them."""
        return base_url(self.host, self.port)

    def close(self) -> None:
        """Accept nothing any more; what the workers hold is theirs to close."""
        for listener in self.listeners:
            listener.close()
        self.close_own()

    def close_own(self) -> None:
        """Close what only this generation is asked by."""
        for listener in self.own:
            with contextlib.suppress(OSError):  # closed before, or the file is gone
                Path(listener.getsockname()).unlink()
            listener.close()

    def ended(self, child: str) -> None:
        """Take a dead worker's gauges out of the metrics of all."""
        if self.metrics is not None and child.startswith(WORKER):
            shared_metrics.forget(child, self.metrics)

    def specs(
        self, words: Sequence[str], env: Mapping[str, str], stop_grace_s: float
    ) -> tuple[ChildSpec, ...]:
        """Return how to start each worker; ``words`` are the options that all of them take."""
        if self.metrics is not None:
            env = {**env, METRICS_DIR: str(self.metrics)}
        specs = []
        for index, (name, listener) in enumerate(zip(self.names(), self.listeners, strict=True)):
            descriptors = [one.fileno() for one in (listener, *self.own[index : index + 1])]
            others = sorted({one.fileno() for one in self.listeners} - {descriptors[0]})
            argv = [sys.executable, "-m", "gateway", "worker", "--name", name, *words]
            for descriptor in descriptors:
                argv += ["--fd", str(descriptor)]
            for descriptor in others:
                argv += ["--other-fd", str(descriptor)]
            specs.append(
                ChildSpec(
                    name=name,
                    role="worker",
                    argv=tuple(argv),
                    env=env,
                    stop_grace_s=stop_grace_s,
                    pass_fds=(*descriptors, *others),
                    socket=Path(self.own[index].getsockname()) if self.own else None,
                )
            )
        return tuple(specs)

    async def probes(self, stack: AsyncExitStack) -> list[tuple[str, httpx.AsyncClient]]:
        """Open a client for each worker, under the name by which people are told of it."""
        if not self.own:
            client = httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=PROBE_S)
            return [("the worker", await stack.enter_async_context(client))]
        probes = []
        for name, listener in zip(self.names(), self.own, strict=True):
            client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=listener.getsockname()),
                base_url="http://worker",
                trust_env=False,
                timeout=PROBE_S,
            )
            probes.append((name, await stack.enter_async_context(client)))
        return probes


@contextmanager
def listening(host: str, port: int, workers: int, data: Path) -> Iterator[Crew]:
    """Bind everything for so many workers, and close it at the end.

    Raises:
        ListenerFailed: the port is taken or not allowed, or the host is not ours.
        DataFolderUnusable: the data folder cannot be written.
        SocketPathTooLong: no place for the workers' Unix sockets.
    """
    with ExitStack() as stack:
        listeners = bind_listeners(host, port, workers)
        for listener in listeners:
            stack.callback(listener.close)
        own: list[socket.socket] = []
        metrics = None
        if workers > 1:
            metrics = _empty(data / METRICS_FOLDER)
            for index in range(workers):
                path = short_socket_path(data, worker_socket_name(_name(index)))
                own.append(bind_unix_listener(path))
                stack.callback(own[-1].close)
        crew = Crew(listeners, tuple(own), metrics, host)
        stack.callback(crew.close)
        yield crew


def _empty(folder: Path) -> Path:
    try:
        shared_metrics.prepare(folder)
    except OSError as error:
        raise DataFolderUnusable(
            f"the folder {str(folder)!r} cannot be made: {error}; remove what has its name, "
            "or choose another folder with --data"
        ) from error
    return folder


def _name(index: int) -> str:
    return f"{WORKER}{index + 1}"
