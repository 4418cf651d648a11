"""Messages and Responses have one choice: of an upstream that says more, one is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.types import (
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire.dialect import Dialect
from backends.wire.messages import MESSAGES
from backends.wire.responses import RESPONSES

HEAD = AnswerHead("gen-1", "acme/chat", "acme", 1)


def streamed(dialect: Dialect, first: int, **params: Any) -> bytes:
    """Return a stream in which two choices speak in turn, ``first`` before the other."""
    other = 1 - first
    request = ChatRequest(
        models=("m",), messages=(), params=params, required=frozenset(), prompt_bytes=0
    )
    encoder = dialect.encoder(HEAD, request)
    tokens = {"content": [{"token": "B", "logprob": -1.0}]}
    said = [
        TextDelta(first, "A"),
        TextDelta(other, "x"),
        TextDelta(first, "B", tokens if params else None),
        ReasoningDelta(other, "x"),
        ToolCallDelta(other, 0, "c", "x", "{}"),
        TextDelta(other, "x"),
        TextDelta(first, "C"),
    ]
    ends = [ChoiceEnd(first, "length", "length"), ChoiceEnd(other, "stop", "stop")]
    finish = Finish(tuple(sorted(ends, key=lambda end: end.index)), None)
    data = encoder.open() + b"".join([encoder.delta(event) for event in said])
    return data + encoder.finish(finish, Usage(1, 1), Cost(0))


def events(data: bytes) -> list[Any]:
    """Return what a client reads."""
    return [json.loads(line[6:]) for line in data.decode().splitlines() if line[:6] == "data: "]


@pytest.mark.parametrize("first", [0, 1])
def test_messages_writes_the_choice_that_spoke_first(first: int) -> None:
    """In one block, with its own reason."""
    found = events(streamed(MESSAGES, first))
    assert [e["type"] for e in found].count("content_block_start") == 1
    texts = [e["delta"].get("text", "") for e in found if e["type"] == "content_block_delta"]
    assert "".join(texts) == "ABC"
    assert next(e for e in found if e["type"] == "message_delta")["delta"]["stop_reason"] == (
        "max_tokens"
    )


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("params", [{}, {"logprobs": True}])
def test_responses_writes_the_choice_that_spoke_first(first: int, params: Any) -> None:
    """In one item, with its log probabilities where they were asked for."""
    found = events(streamed(RESPONSES, first, **params))
    deltas = [e["delta"] for e in found if e["type"] == "response.output_text.delta"]
    assert deltas == ["A", "B", "C"]
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    response = found[-1]["response"]
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    [item] = response["output"]
    [part] = item["content"]
    assert part["text"] == "ABC"
    assert [token["token"] for token in part["logprobs"]] == (["B"] if params else [])
