"""OpenAI's Embeddings answers, as our clients get them."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.collect import ChatAnswer
from backends.types import AnswerHead, ChatRequest, Cost, Usage
from backends.wire.dialect import StreamEncoder
from backends.wire.embeddings_request import wants_base64
from backends.wire.openai_reply import usage_body
from backends.wire.vectors import base64_text, floats


def encode_answer(
    head: AnswerHead, request: ChatRequest, answer: ChatAnswer, usage: Usage, cost: Cost
) -> bytes:
    """Return the body of a whole answer: vectors as the client asked for them."""
    written = base64_text if wants_base64(request) else floats
    body: dict[str, Any] = {
        "id": head.id,
        "object": "list",
        "data": [
            {"object": "embedding", "index": choice.index, "embedding": written(choice.vector)}
            for choice in answer.choices
            if choice.vector is not None
        ],
        "model": head.model,
        "provider": head.provider,
        "usage": usage_body(usage, cost),
    }
    if answer.extras:
        body["provider_extras"] = {head.provider: answer.extras}
    return msgspec.json.encode(body)


def never_streamed(head: AnswerHead, request: ChatRequest) -> StreamEncoder:
    """Stand where a dialect has its stream: ``decode_request`` refuses to begin one."""
    raise AssertionError("embeddings are never streamed")
