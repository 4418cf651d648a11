"""How commands reach Redis: one connection, one write for all that wait, replies in order.

Why not the client's pool: a pooled call costs several times as much, and giving a connection back
is itself a wait that a cancelled caller can leave undone. Here redis-py opens the connection (TLS,
credentials, database), then its socket is read by a protocol of ours: what callers ask in one turn
of the event loop leaves in one write, and replies go to the callers' futures in the order of the
commands. A cancelled caller's reply is still read, and thrown away; so no reply can ever reach
another caller (the fault of CVE-2023-28858). A connection that failed in any way, a late reply
among them, is closed and never read again.

Errors of the client are mapped here and nowhere else: all of them become `LedgerUnavailable`.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    ChildDeadlockedError,
    IncorrectPolicyType,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from policies.ledger.base import LedgerUnavailable
from policies.ledger.connect import COMMAND_TIMEOUT_S

FOREIGN_ERRORS: tuple[type[Exception], ...] = (
    RedisError,
    RedisClusterException,
    ChildDeadlockedError,
    IncorrectPolicyType,
    hiredis.HiredisError,
    OSError,
    EOFError,
    TimeoutError,
)
"""Everything that the client raises. What is not in here is a fault of ours."""

Command = tuple[str | bytes | int, ...]
_FUNCTION_MISSING = "Function not found"
_NOTHING: Final = object()


@functools.cache
def library_source() -> str:
    """The text of the function library."""
    return resources.files("policies.ledger").joinpath("functions.lua").read_text("utf-8")


class _Replies(asyncio.Protocol):
    """One connection's replies, each to the caller who has waited longest."""

    def __init__(self, connection: AbstractConnection) -> None:
        """Takes over the socket that `connection` has opened; what it owned is ours then."""
        self.waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        """Callers and the loop's time at which each has waited too long."""
        self.lost: Exception | None = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING, replyError=ResponseError)
        self._writer = cast(asyncio.StreamWriter, connection._writer)  # it closes when collected
        connection._reader = connection._writer = None
        self.transport = cast(asyncio.Transport, self._writer.transport)
        self.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Hands out the replies that are complete."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                if isinstance(reply, hiredis.PushNotification):
                    continue
                if not self.waiting:
                    raise hiredis.ProtocolError("the server said what nobody asked for")
                future, _ = self.waiting.popleft()
                if future.done():
                    continue
                if isinstance(reply, ResponseError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except hiredis.HiredisError as error:
            self.close(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody who waits will be answered."""
        self.close(error or ConnectionError("the server closed the connection"))

    def close(self, error: Exception) -> None:
        """Ends the connection now; whoever waits gets `error`."""
        self.lost = self.lost or error
        self.transport.abort()
        while self.waiting:
            _fail(self.waiting.popleft()[0], error)


class Calls:
    """One line to Redis. Belongs to one event loop; `aclose` ends its connection and its task.

    Each call is sent at most once, and is answered or fails within `timeout_s` seconds, or within
    twice as long where the connection has to be opened first.
    """

    def __init__(self, redis: Redis, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Takes the address and credentials of `redis`; opens nothing yet."""
        self._pool = redis.connection_pool
        self._timeout_s = timeout_s
        self._replies: _Replies | None = None
        self._unsent: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
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
        if self._timer is not None:
            self._timer.cancel()
        error = ConnectionError("the ledger's connection was closed")
        self._fail_unsent(error)
        if self._replies is not None:
            self._replies.close(error)

    def _submit(self, command: Command) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            future.set_exception(ConnectionError("the ledger is closed"))
            return future
        self._unsent.append((hiredis.pack_command(command), future))  # type: ignore[arg-type]
        if len(self._unsent) == 1:
            if self._replies is None or self._replies.lost is not None:
                self._task = loop.create_task(self._connect(), name="ledger-connect")
            else:
                loop.call_soon(self._send)
        return future

    def _send(self) -> None:
        """Sends everything that was asked in this turn of the loop, in one write."""
        replies, loop = self._replies, asyncio.get_running_loop()
        if not self._unsent:
            return  # closed meanwhile
        if replies is None or replies.lost is not None:  # nothing of this was sent
            self._task = loop.create_task(self._connect(), name="ledger-connect")
            return
        late = loop.time() + self._timeout_s
        unsent, self._unsent = self._unsent, []
        replies.waiting.extend((future, late) for _, future in unsent)
        replies.transport.write(b"".join(data for data, _ in unsent))
        if self._timer is None:
            self._timer = loop.call_at(late, self._look)

    def _look(self) -> None:
        """Gives up on the connection if its oldest caller has waited too long."""
        loop = asyncio.get_running_loop()
        self._timer = None
        if self._replies is None or not self._replies.waiting:
            return
        late = self._replies.waiting[0][1]
        if late <= loop.time():
            self._replies.close(TimeoutError(f"no answer within {self._timeout_s:g} s"))
        else:
            self._timer = loop.call_at(late, self._look)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = self._pool.connection_class(**self._pool.connection_kwargs)
                await connection.connect()  # type: ignore[no-untyped-call]
            self._replies = _Replies(connection)
        except FOREIGN_ERRORS as error:
            self._fail_unsent(error)
        except Exception:
            self._fail_unsent(ConnectionError("connecting failed"))
            raise
        else:
            self._send()

    def _fail_unsent(self, error: Exception) -> None:
        unsent, self._unsent = self._unsent, []
        for _, future in unsent:
            _fail(future, error)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _unavailable(command: object, error: BaseException) -> LedgerUnavailable:
    """The error that callers see: which call, and what the client said.

    No argument of the call is in it.
    """
    said = str(error) or type(error).__name__
    return LedgerUnavailable(f"Redis could not run {command!r}: {said}")
