"""How commands reach Redis: one connection, one write for all that wait, replies in order.

Why not the client's pool: a pooled call costs about twice as much, and giving a connection back is
itself a wait that a cancelled caller can leave undone. Here a caller only waits for a future. When
it is cancelled the reply is still read, by the one task that owns the connection, and thrown away;
so no reply can ever reach another caller (the fault of CVE-2023-28858). A connection that failed in
any way is closed and never read again.

Errors of the client are mapped here and nowhere else: all of them become `LedgerUnavailable`.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    ChildDeadlockedError,
    IncorrectPolicyType,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from policies.ledger.base import LedgerUnavailable
from policies.ledger.connect import COMMAND_TIMEOUT_S

FOREIGN_ERRORS: tuple[type[Exception], ...] = (
    RedisError,
    RedisClusterException,
    ChildDeadlockedError,
    IncorrectPolicyType,
    OSError,
    EOFError,
    TimeoutError,
)
"""Everything that the client raises. What is not in here is a fault of ours."""

Command = tuple[str | bytes | int, ...]
_MOST_PER_WRITE = 256
_FUNCTION_MISSING = "Function not found"


@functools.cache
def library_source() -> str:
    """The text of the function library."""
    return resources.files("policies.ledger").joinpath("functions.lua").read_text("utf-8")


class Calls:
    """One line to Redis. Belongs to one event loop; `aclose` ends its connection and its task.

    Each call is sent at most once, and is answered or fails within `timeout_s` seconds.
    """

    def __init__(self, redis: Redis, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Takes the address and credentials of `redis`; opens nothing yet."""
        self._pool = redis.connection_pool
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._queue: list[tuple[Command, asyncio.Future[Any]]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def command(self, *command: str | bytes | int) -> Any:
        """Runs one command and returns its reply, texts as bytes.

        A cancelled caller's command may still run.

        Raises:
            LedgerUnavailable: no answer in time, or an error reply. It may have run unless it was
                refused.
        """
        try:
            return await self._submit(command)
        except FOREIGN_ERRORS as error:
            raise _unavailable(command[0], error) from error

    async def many(self, commands: Sequence[Command]) -> list[Any]:
        """Runs commands in one round trip; as `command`, and the first error counts.

        Not a transaction.
        """
        replies = await asyncio.gather(*map(self._submit, commands), return_exceptions=True)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, FOREIGN_ERRORS):
                raise _unavailable(command[0], reply) from reply
            if isinstance(reply, BaseException):
                raise reply
        return replies

    async def function(self, name: str, keys: Sequence[str], args: Command) -> Any:
        """Runs a function of the library; loads the library if the server has lost it.

        Raises:
            LedgerUnavailable: as `command`.
        """
        command: Command = ("FCALL", name, len(keys), *keys, *args)
        try:
            return await self._submit(command)
        except ResponseError as error:
            if _FUNCTION_MISSING not in str(error):
                raise _unavailable(name, error) from error
        except FOREIGN_ERRORS as error:
            raise _unavailable(name, error) from error
        await self.load_functions()
        return await self.command(*command)

    async def load_functions(self) -> None:
        """Loads the library in this release's text, in place of the one that is there.

        Raises:
            LedgerUnavailable: as `command`.
        """
        await self.command("FUNCTION", "LOAD", "REPLACE", library_source())

    async def aclose(self) -> None:
        """Closes the connection; calls that still wait fail. May be called twice."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _submit(self, command: Command) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            future.set_exception(ConnectionError("the ledger is closed"))
            return future
        self._queue.append((command, future))
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work(), name="ledger-calls")
        return future

    def _take(self, most: int) -> list[tuple[Command, asyncio.Future[Any]]]:
        taken, self._queue = self._queue[:most], self._queue[most:]
        return [entry for entry in taken if not entry[1].done()]

    async def _work(self) -> None:
        """The task that owns the connection: sends what waits, reads as many replies, again."""
        try:
            while True:
                await self._wake.wait()
                batch = self._take(_MOST_PER_WRITE)
                if not self._queue:
                    self._wake.clear()
                if batch:
                    await self._round_trip(batch)
        finally:
            self._fail(
                self._take(len(self._queue)), ConnectionError("the ledger's connection was closed")
            )
            await self._disconnect()

    async def _round_trip(self, batch: list[tuple[Command, asyncio.Future[Any]]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(batch)
        except FOREIGN_ERRORS as error:
            await self._disconnect()
            self._fail(batch, error)
            if isinstance(
                error, TimeoutError | RedisTimeoutError
            ):  # those behind have waited as long, and were never sent
                self._fail(self._take(len(self._queue)), error)
        except BaseException:
            self._fail(batch, ConnectionError("the ledger's connection was closed"))
            raise

    async def _exchange(self, batch: list[tuple[Command, asyncio.Future[Any]]]) -> None:
        if self._connection is not None and await self._connection.can_read():
            await self._disconnect()  # the server hung up, or said something that nobody asked for
        connection = self._connection
        if connection is None:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            connection.socket_timeout = (
                None  # one timer for the whole exchange, not two for each part of it
            )
            self._connection = connection
            await connection.connect()  # type: ignore[no-untyped-call]
        packed: list[bytes] = []
        for command, _ in batch:
            packed += connection.pack_command(*command)
        await connection.send_packed_command(packed, check_health=False)
        for _, future in batch:
            try:
                reply = await connection.read_response(timeout=math.inf)
            except ResponseError as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(reply)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    @staticmethod
    def _fail(batch: list[tuple[Command, asyncio.Future[Any]]], error: Exception) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)


def _unavailable(command: object, error: BaseException) -> LedgerUnavailable:
    """The error that callers see: which call, and what the client said.

    No argument of the call is in it.
    """
    said = str(error) or type(error).__name__
    return LedgerUnavailable(f"Redis could not run {command!r}: {said}")
