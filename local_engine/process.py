"""The engine as a process: its socket, its model, its signals, its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from local_engine import manifest
from local_engine.app import Host, create_app
from local_engine.engine import Engine, Parts
from local_engine.errors import LoadError
from local_engine.prompt import PromptReader
from local_engine.scheduler import Limits, Scheduler
from local_engine.service import Service, ServiceParts
from local_engine.text import TextOut

if TYPE_CHECKING:
    from local_engine.loader import LoadedModel

_logger = logging.getLogger(__name__)
_MAX_SOCKET_PATH_BYTES = 107
_CLOSE_S = 5


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What one engine process is started with.

    Attributes:
        weights: A folder in Hugging Face's format.
        name: The model's public name.
        socket_path: Where to listen.
        limits: The scheduler's.
        drain_seconds: How long requests may go on after a signal to end.
    """

    weights: Path
    name: str
    socket_path: Path
    limits: Limits
    drain_seconds: float


def check_weights(weights: Path) -> None:
    """Look whether a folder can be loaded, without the seconds that loading takes.

    Raises:
        LoadError: It is missing or not whole.
    """
    advice = "run `make setup`"
    if not (weights / "config.json").is_file() or not any(weights.glob("*.safetensors")):
        raise LoadError(f"no weights in {weights}: {advice}, or point --weights at a model folder")
    made = manifest.read(weights)
    fault = manifest.find_fault(weights, made, hashes=False) if made else None
    if fault is not None:
        raise LoadError(f"the weights in {weights} are broken ({fault}): {advice}")


def build_service(loaded: LoadedModel, host: Host, limits: Limits) -> Service:
    """Put an engine together around a loaded model."""
    from tokenizers import Tokenizer

    from local_engine.runner import CachedRunner
    from local_engine.sampler import Sampler

    # Decoding runs on the engine's thread while prompts are tokenized on another.
    decoder = Tokenizer.from_str(loaded.tokenizer.backend_tokenizer.to_str())
    parts = Parts(
        runner=CachedRunner(loaded.model),
        sampler=Sampler(),
        make_text=lambda stop: TextOut(decoder, stop),
        eos_token_ids=loaded.eos_token_ids,
    )
    return Service(
        ServiceParts(
            engine=Engine(Scheduler(limits), parts),
            prompts=PromptReader(loaded.tokenizer, loaded.window_tokens),
            metrics=host.metrics,
            max_held_requests=limits.max_held_requests,
            clock=time.monotonic,
            draw_seed=lambda: secrets.randbits(63),
        )
    )


def bind(path: Path) -> socket.socket:
    """Return a listening socket that only this user can reach; replaces what a dead process left.

    Raises:
        LoadError: Another process listens there, or the path cannot be used.
    """
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        raise LoadError(f"the socket path is over {_MAX_SOCKET_PATH_BYTES} bytes: {path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        old_mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(old_mask)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise LoadError(f"cannot listen on {path}: {error.strerror}") from error
    except LoadError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise LoadError(f"cannot listen on {path}: it is a file, not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        if probe.connect_ex(os.fspath(path)) != errno.ECONNREFUSED:
            raise LoadError(f"cannot listen on {path}: another process does")
    path.unlink()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: they end the process by the signal after a drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Process:
    """Serves one model until a signal or a fault; then `run` returns the exit code."""

    def __init__(self, settings: ProcessSettings) -> None:
        """Prepare; nothing is loaded or served yet."""
        self._settings = settings
        self._host = Host(settings.name)
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._exit_code = 0
        self._drained: asyncio.Task[None] | None = None
        self._loader: threading.Thread | None = None

    @property
    def is_loading(self) -> bool:
        """Whether the loading thread is at work, which only the end of the process can stop."""
        return self._loader is not None and self._loader.is_alive()

    async def run(self, listener: socket.socket) -> int:
        """Serve on a listening socket, loading the model meanwhile; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_drain)
        config = uvicorn.Config(
            create_app(self._host),
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http="httptools",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_S,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        self._loader = threading.Thread(target=self._load, args=(loop,), daemon=True)
        self._loader.start()
        await self._ending.wait()
        if self._host.service is not None:
            await self._host.service.stop()
        server.should_exit = True
        await serving
        return self._exit_code

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        """Load on a thread of its own; importing torch alone takes seconds."""
        started_s = time.monotonic()
        try:
            from local_engine.loader import load

            loaded = load(self._settings.weights)
            service = build_service(loaded, self._host, self._settings.limits)
        except LoadError as error:
            loop.call_soon_threadsafe(self._fail, str(error))
        except Exception as error:
            _logger.exception("loading failed")
            loop.call_soon_threadsafe(self._fail, f"loading failed: {error}")
        else:
            seconds = time.monotonic() - started_s
            loop.call_soon_threadsafe(self._serve, service, loaded.window_tokens, seconds)

    def _serve(self, service: Service, window_tokens: int, seconds: float) -> None:
        if self._ending.is_set():
            return
        service.start(lambda: self._fail("the model failed repeatedly"))
        self._host.ready(service, window_tokens)
        say(f"{self._settings.name} is ready after {seconds:.1f} s")

    def _fail(self, message: str) -> None:
        say(f"error: {message}")
        self._exit_code = 1
        self._ending.set()

    def _begin_drain(self) -> None:
        if self._drained is not None:
            self._hurry.set()
            return
        self._host.drain()
        self._drained = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        """Let the requests held end, within the time given or until a second signal."""
        if self._host.service is not None:
            waits = (
                asyncio.create_task(self._host.service.wait_idle()),
                asyncio.create_task(self._hurry.wait()),
            )
            await asyncio.wait(
                waits,
                timeout=self._settings.drain_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in waits:
                task.cancel()
        self._ending.set()


def run(settings: ProcessSettings) -> int:
    """Serve one model in this process; returns its exit code.

    Raises:
        LoadError: The weights are missing or broken, or the socket cannot be had.
    """
    check_weights(settings.weights)
    listener = bind(settings.socket_path)
    say(f"listening on {settings.socket_path}, loading {settings.name}")
    try:
        process, exit_code = asyncio.run(_run(settings, listener))
    finally:
        settings.socket_path.unlink(missing_ok=True)
    if process.is_loading:
        # The interpreter would wait for torch, or crash in it.
        sys.stderr.flush()
        os._exit(exit_code)
    return exit_code


async def _run(settings: ProcessSettings, listener: socket.socket) -> tuple[Process, int]:
    process = Process(settings)
    return process, await process.run(listener)


def say(line: str) -> None:
    """Print a line for the operator on stderr."""
    sys.stderr.write(f"local_engine: {line}\n")
    sys.stderr.flush()
