"""The body of an OpenAI chat stream as event batches; shared by the adapters of that wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

from backends.errors import BackendError
from backends.types import StreamEvent
from backends.wire.openai_chat import StreamDecoder

REST_S: Final = 0.02
"""How long the end of the body may take after the answer's end: a connection whose answer was
not read to its end cannot be used again."""


async def events_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Sequence[StreamEvent]]:
    """Yield the events of each read until the answer's end.

    Raises:
        BackendError: the stream reported an error, broke off, or is another wire.
    """
    decoder = StreamDecoder()
    try:
        async for chunk in chunks:
            if events := decoder.feed(chunk):
                yield events
            if decoder.failure is not None:
                raise decoder.failure
            if decoder.done:
                return
        if events := decoder.end():
            yield events
        if decoder.failure is not None:
            raise decoder.failure
    finally:
        if decoder.done:
            await _read_rest(chunks)


async def _read_rest(chunks: AsyncIterator[bytes]) -> None:
    with suppress(BackendError, TimeoutError):
        async with asyncio.timeout(REST_S):
            async for _ in chunks:
                pass
