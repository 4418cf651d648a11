"""What the tests of several wires share: a decoder fed in reads, and requests to encode."""

from __future__ import annotations

import json
from typing import Any

from backends.errors import BackendError
from backends.types import ChatRequest, StreamEvent
from backends.wire.decoder import AnswerDecoder
from backends.wire.openai_request import decode_request


def feed(decoder: AnswerDecoder, *reads: bytes) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode a body that arrives in these reads."""
    events: list[StreamEvent] = []
    for read in reads:
        events += decoder.feed(read)
        if decoder.done or decoder.failure:
            return events, decoder.failure
    return events + decoder.end(), decoder.failure


def chat(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    """Return a chat request as a client's body makes it."""
    turns = list(messages) or [{"role": "user", "content": "hi"}]
    body = {"model": "acme/chat", "messages": turns} | fields
    return decode_request(json.dumps(body).encode()).request


def sse(*documents: Any) -> bytes:
    """Return documents as server-sent events."""
    return b"".join(b"data: " + json.dumps(d).encode() + b"\n\n" for d in documents)


def lines(*documents: Any) -> bytes:
    """Return documents as lines."""
    return b"".join(json.dumps(d).encode() + b"\n" for d in documents)


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "d", "parameters": {"type": "object"}},
}
