"""Reads request bodies within bounds, so that even a refused client gets its answer."""

from __future__ import annotations

import asyncio
from typing import cast

from litestar.types import HTTPReceiveMessage, HTTPScope, Receive

from gateway.errors import BodyTooLarge, BodyTooSlow, Overloaded
from gateway.settings import ServerSettings


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Bodies:
    """Reads bodies within the bounds of one, and of all that a worker reads at once."""

    def __init__(self, settings: ServerSettings) -> None:
        """Nothing is being read yet."""
        self._settings = settings
        self.held_bytes = 0

    async def read(self, receive: Receive) -> bytes:
        """Return the whole body; its bytes count until they are released.

        Raises:
            BodyTooLarge: it is over ``max_body_bytes``.
            BodyTooSlow: it did not arrive in ``read_body_s``.
            Overloaded: with the others it is over ``max_bodies_bytes``.
            ClientGone: the client left.
        """
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.read_body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    assert message["type"] == "http.request"
                    chunks.append(message["body"])
                    size += len(message["body"])
                    self.held_bytes += len(message["body"])
                    self._check(size)
                    if not message["more_body"]:
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except BaseException as error:
            chunks.clear()  # the error that is on its way still refers to this frame
            self.held_bytes -= size
            if isinstance(error, TimeoutError):
                raise BodyTooSlow(self._settings.read_body_s) from None
            raise

    def release(self, body: bytes) -> None:
        """Count a body no longer."""
        self.held_bytes -= len(body)

    def _check(self, size: int) -> None:
        if size > self._settings.max_body_bytes:
            raise BodyTooLarge(self._settings.max_body_bytes)
        if self.held_bytes > self._settings.max_bodies_bytes:
            raise Overloaded("this worker is reading too many bytes; try again in a moment")


class Upload:
    """A body on its way, so that what no handler read can be thrown away.

    A client that is still writing does not read the answer; and closing a connection with
    unread data in it takes the answer away from a client that would.
    """

    def __init__(self, scope: HTTPScope, receive: Receive) -> None:
        """Nothing has been received yet."""
        headers = dict(scope["headers"])
        self._receive = receive
        self._size = 0
        self._asks_first = b"expect" in headers
        self.ended = not (
            int(headers.get(b"content-length", b"0")) or b"transfer-encoding" in headers
        )

    async def receive(self) -> HTTPReceiveMessage:
        """Pass the next message on."""
        message = cast(HTTPReceiveMessage, await self._receive())
        if message["type"] == "http.request":
            self._size += len(message["body"])
            self.ended = not message["more_body"]
        else:
            self.ended = True
        return message

    async def discard(self, settings: ServerSettings, *, most_s: float) -> None:
        """Read on and throw away, up to a size and a time; nothing if the client waits for us."""
        if self._asks_first and not self._size:
            return
        try:
            async with asyncio.timeout(min(most_s, settings.discard_body_s)):
                while not self.ended and self._size <= settings.discard_body_bytes:
                    _ = await self.receive()
        except TimeoutError:
            return
