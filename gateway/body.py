"""Reads request bodies within bounds, so that even a refused client gets its answer."""

from __future__ import annotations

import asyncio

from litestar.types import Receive

from gateway.errors import BodyTooLarge, BodyTooSlow
from gateway.settings import ServerSettings


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


async def read_body(receive: Receive, settings: ServerSettings) -> bytes:
    """Return the whole body.

    A body over the limit is read on and thrown away (up to a size and a time), because a
    client that is still writing does not read the answer.

    Raises:
        BodyTooLarge: it is over ``max_body_bytes``.
        BodyTooSlow: it did not arrive in ``read_body_s``.
        ClientGone: the client left.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.read_body_s):
            more = True
            while more:
                chunk, more = await _next(receive)
                size += len(chunk)
                if size > settings.max_body_bytes:
                    break
                chunks.append(chunk)
    except TimeoutError:
        raise BodyTooSlow(settings.read_body_s) from None
    if size > settings.max_body_bytes:
        chunks.clear()
        await _discard(receive, settings, size if more else None)
        raise BodyTooLarge(settings.max_body_bytes)
    return b"".join(chunks)


async def _discard(receive: Receive, settings: ServerSettings, size: int | None) -> None:
    try:
        async with asyncio.timeout(settings.discard_body_s):
            while size is not None and size <= settings.discard_body_bytes:
                chunk, more = await _next(receive)
                size = size + len(chunk) if more else None
    except TimeoutError:
        return


async def _next(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    assert message["type"] == "http.request"
    return message["body"], message["more_body"]
