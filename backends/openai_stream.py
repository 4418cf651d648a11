"""The body of an OpenAI chat stream as event batches; shared by the adapters of that wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from backends.types import StreamEvent
from backends.wire.openai_chat import StreamDecoder


async def events_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Sequence[StreamEvent]]:
    """Yield the events of each read until the answer's end.

    Raises:
        BackendError: the stream reported an error, broke off, or is another wire.
    """
    decoder = StreamDecoder()
    async for chunk in chunks:
        if events := decoder.feed(chunk):
            yield events
        if decoder.done:
            return
    if events := decoder.end():
        yield events
