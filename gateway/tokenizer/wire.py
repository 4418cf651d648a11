"""What a worker and the tokenizer process say to each other: a length, then a MessagePack."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

MAX_TEXT_BYTES: Final = 32_000_000
"""A text above this is not counted: its bound by bytes stands."""

_LENGTH_BYTES: Final = 4


class Question(msgspec.Struct, frozen=True, array_like=True):
    """How many tokens a text has in an encoding."""

    encoding: str
    text: str


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The count, or why there is none."""

    tokens: int | None
    error: str | None = None


def frame(message: Question | Reply) -> bytes:
    """Return a message as it travels."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Read one message's body.

    Raises:
        EOFError: the other side has gone (``IncompleteReadError``).
        ValueError: it is longer than any message may be.
    """
    size = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
    if size > MAX_TEXT_BYTES + 1024:
        raise ValueError(f"a message of {size} bytes is too long")
    return await reader.readexactly(size)
