"""What all commands share: their options, how they answer, and how they reach the ledger."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from gateway import config
from gateway.settings import RedisSettings, Settings
from gateway.supervisor.embedded import embedded_valkey
from gateway.supervisor.errors import SupervisorError
from gateway.supervisor.lockfile import lock_path, prepare_data_dir, read_lock
from gateway.supervisor.sockets import TOKENIZER_SOCKET, VALKEY_SOCKET, short_socket_path
from gateway.supervisor.valkey import VALKEY
from policies.ledger.base import LedgerError
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from policies.ledger.keys import KeyStore

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

PEPPER_BYTES = 32


class CommandFailed(Exception):
    """A command cannot do what it was asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options that every command takes."""

    as_json: bool
    config: Path | None
    data: Path

    def settings(self) -> Settings:
        """Read the configuration.

        Raises:
            ConfigError: it has faults.
        """
        return config.load(self.config)

    def redis(self) -> RedisSettings:
        """Return where the ledger is."""
        return RedisSettings() if self.config is None else self.settings().redis

    def say(self, document: Any, text: str) -> None:
        """Answer: the document as one JSON line, or the text for people."""
        click.echo(msgspec.json.encode(document).decode() if self.as_json else text)


def common(command: F) -> F:
    """Give a command ``--json``, ``--config`` and ``--data``, and turn errors into exit 1."""

    @click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Answer with one line of JSON.",
    )
    @click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The configuration file; without one the built-in model is served.",
    )
    @click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("data"),
        show_default=True,
        help="The data folder.",
    )
    @wraps(command)
    def wrapped(
        *args: Any, as_json: bool, config_file: Path | None, data: Path, **kwargs: Any
    ) -> Any:
        options = Options(as_json, config_file, data)
        try:
            return command(options, *args, **kwargs)
        except (CommandFailed, config.ConfigError, LedgerError, SupervisorError) as error:
            fail(options, str(error))

    return wrapped  # type: ignore[return-value]


def fail(options: Options, message: str) -> NoReturn:
    """Say what went wrong and end with exit code 1."""
    if options.as_json:
        click.echo(msgspec.json.encode({"error": {"message": message}}).decode())
    else:
        click.echo(f"error: {message}", err=True)
    raise SystemExit(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine."""
    return asyncio.run(work)


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger and the keys."""

    ledger: Ledger
    keys: KeyStore


@asynccontextmanager
async def books(options: Options) -> AsyncIterator[Books]:
    """Open the ledger, whether a server runs on the data folder or not.

    Raises:
        SupervisorError: the embedded Valkey cannot be had.
        LedgerError: the ledger cannot be reached.
    """
    redis = options.redis()
    async with AsyncExitStack() as stack:
        url = redis.url
        if url == "embedded":
            _check_not_elsewhere(options)
            env = config.child_environment()
            url = f"unix://{await stack.enter_async_context(embedded_valkey(options.data, env))}"
        async with opened(url, pepper(options.data), redis.timeout_s) as found:
            yield found


def _check_not_elsewhere(options: Options) -> None:
    """Do not wait for an embedded Valkey that the running server does not have.

    Raises:
        CommandFailed: the server on this folder keeps its ledger in another Redis.
    """
    state = read_lock(lock_path(options.data.absolute()))
    serving = state is not None and state.kind == "serve" and state.is_live()
    if serving and state is not None and state.announced and state.socket_of(VALKEY) is None:
        raise CommandFailed(
            f"the server on {options.data} keeps its ledger in a Redis of its own: "
            "give this command the same --config"
        )


@asynccontextmanager
async def opened(url: str, secret: bytes, timeout_s: float) -> AsyncIterator[Books]:
    """Open ledger and keys at a known URL."""
    client = connect(url, timeout_s=timeout_s)
    ledger = Ledger(client, timeout_s=timeout_s)
    keys = KeyStore(client, secret, timeout_s=timeout_s)
    try:
        await ledger.start()
        yield Books(ledger, keys)
    finally:
        await keys.aclose()
        await ledger.aclose()
        await client.aclose()


def pepper(data: Path) -> bytes:
    """Return the secret that keys are digested with; made at the first start.

    Raises:
        CommandFailed: the file cannot be read or written, or the variable is too short.
    """
    given = config.key_pepper()
    if given is not None:
        if len(given) < 16:
            raise CommandFailed("TOLLWAY_KEY_PEPPER is too short: use at least 16 characters")
        return given
    path = prepare_data_dir(data) / "pepper"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return _new_pepper(path)
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be read: {error.strerror}") from None


def _new_pepper(path: Path) -> bytes:
    """Write a whole pepper or none; of two processes at once one wins, and both use it."""
    draft = path.with_name(f".pepper-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(PEPPER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be written: {error.strerror}") from None


def redis_url(settings: Settings, data: Path) -> str:
    """Return where the ledger of a server on a data folder is; it may hold a password."""
    url = settings.redis.url
    return f"unix://{short_socket_path(data, VALKEY_SOCKET)}" if url == "embedded" else url


def tokenizer_socket(settings: Settings, data: Path) -> Path | None:
    """Return where tokens are counted; None where no endpoint names a tokenizer."""
    wanted = any(endpoint.tokenizer for model in settings.models for endpoint in model.endpoints)
    return short_socket_path(data, TOKENIZER_SOCKET) if wanted else None


def base_url(host: str | None, port: int) -> str:
    """Return the URL at which a client on this machine reaches a listener."""
    name = {None: "127.0.0.1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{port}" if ":" in str(name) else f"http://{name}:{port}"


def usd(nanodollars: int) -> str:
    """Write an amount for people."""
    sign = "-" if nanodollars < 0 else ""
    whole, rest = divmod(abs(nanodollars), 10**9)
    cents, fine = divmod(rest, 10**7)
    tail = f"{fine:07d}".rstrip("0")
    return f"{sign}${whole}.{cents:02d}{tail}"
