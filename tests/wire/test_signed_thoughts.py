"""Reasoning of Anthropic's models behind fronts that speak OpenAI's chat keeps its signatures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.collect import Choice, Collector
from backends.errors import ProtocolError
from backends.types import Finish, ReasoningDelta
from backends.wire.details import ANTHROPIC
from backends.wire.openai_chat import StreamDecoder
from tests.upstream import DONE, choice, chunk, data
from tests.wire.plain import feed

SIGNED = {"type": "reasoning.text", "text": "Think", "signature": "SIG", "format": ANTHROPIC}
HIDDEN = {"type": "reasoning.encrypted", "data": "XYZ", "format": ANTHROPIC}
END = data(chunk(choice(0, "stop"))) + DONE


def thinking(text: str = "", signature: str | None = None) -> dict[str, Any]:
    """Return a block as Anthropic has it."""
    return {"type": "thinking", "thinking": text, "signature": signature}


def summed(text: str, signature: str = "") -> dict[str, Any]:
    """Return the content of a delta as Databricks has it."""
    piece = {"type": "summary_text", "text": text, "signature": signature}
    return {"content": [{"type": "reasoning", "summary": [piece]}]}


def blocks(**delta: Any) -> dict[str, Any]:
    """Return a delta as Portkey has it."""
    return {"content_blocks": [{"index": 0, "delta": delta}]}


REDACTED = {"type": "redacted_thinking", "data": "XYZ"}
TEXT = {"type": "text", "text": "Hi"}
WHOLE: dict[str, dict[str, Any]] = {
    "LiteLLM": {"content": "Hi", "thinking_blocks": [thinking("Think", "SIG"), REDACTED]},
    "Portkey": {"content": "Hi", "content_blocks": [thinking("Think", "SIG"), REDACTED, TEXT]},
    "Heroku": {"content": "Hi", "reasoning": {"thinking": "Think", "signature": "SIG"}},
    "Databricks": {"content": summed("Think", "SIG")["content"] + [TEXT]},
}
STREAMED: dict[str, list[dict[str, Any]]] = {
    "LiteLLM": [
        {"content": "", "thinking_blocks": [thinking("Th")]},
        {"content": "", "thinking_blocks": [thinking("ink")]},
        {"content": "", "thinking_blocks": [thinking(signature="SIG")]},
        {"content": "", "thinking_blocks": [REDACTED]},
        {"content": "Hi", "thinking_blocks": None},
    ],
    "Portkey": [
        {"content": "", **blocks(thinking="Think")},
        blocks(signature="SIG"),
        blocks(data="XYZ"),
        {"content": "Hi", "content_blocks": [{"index": 1, "delta": {"text": "Hi"}}]},
    ],
    "Heroku": [
        {"reasoning": {"thinking": "Think"}},
        {"reasoning": {"signature": "SIG"}},
        {"content": "Hi"},
    ],
    "Databricks": [
        summed("Th"),
        summed("ink"),
        summed("", "SIG"),
        {"content": [TEXT | {"text": "H"}]},
        {"content": "i"},
    ],
}


def answered(body: bytes) -> Choice:
    """Return what a complete answer of one choice adds up to; it has no extras."""
    events, failure = feed(StreamDecoder(), body)
    assert failure is None, failure
    assert isinstance(events[-1], Finish)
    assert events[-1].extras is None
    collector = Collector()
    collector.add(events)
    [found] = collector.answer().choices
    return found


def whole(message: dict[str, Any]) -> bytes:
    """Return a whole answer."""
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def streamed(*deltas: dict[str, Any]) -> bytes:
    """Return a stream."""
    return b"".join(data(chunk(choice(**delta))) for delta in deltas) + END


@pytest.mark.parametrize("front", WHOLE)
def test_a_signature_is_kept_with_its_words(front: str) -> None:
    """Streamed and whole, as Anthropic's own wire gives it."""
    hidden = [HIDDEN | {"index": 1}] if front in ("LiteLLM", "Portkey") else []
    for body in (whole(WHOLE[front]), streamed(*STREAMED[front])):
        found = answered(body)
        assert (found.text, found.reasoning) == ("Hi", "Think")
        assert found.details == [SIGNED | {"index": 0}, *hidden]


@pytest.mark.parametrize("front", ["LiteLLM", "Portkey", "Heroku"])
def test_words_of_a_message_that_stand_twice_are_said_once(front: str) -> None:
    """In the usual field and beside the signature."""
    beside = {"reasoning_content": "Think", "reasoning_details": []}
    found = answered(whole(WHOLE[front] | beside))
    assert found.reasoning == "Think"
    assert found.details[0] == SIGNED | {"index": 0}


def test_words_of_a_stream_that_stand_twice_are_said_once() -> None:
    """LiteLLM repeats each piece."""
    pieces = [
        {"reasoning_content": text, "thinking_blocks": [thinking(text)]} for text in ("Th", "ink")
    ]
    found = answered(streamed(*pieces, {"thinking_blocks": [thinking(signature="SIG")]}))
    assert found.reasoning == "Think"
    assert found.details == [SIGNED | {"index": 0}]


def test_signatures_of_several_blocks_stay_beside_their_own_words() -> None:
    """Whoever hands one back has to hand back what was signed."""
    signed = [thinking("a", "S"), thinking("b", "T")]
    body = whole({"content": "Hi", "reasoning_content": "ab", "thinking_blocks": signed})
    events, _ = feed(StreamDecoder(), body)
    said = [event for event in events if isinstance(event, ReasoningDelta)]
    assert [(one.text, one.details[0]["signature"]) for one in said] == [("a", "S"), ("b", "T")]
    assert [one.details[0]["index"] for one in said] == [0, 1]


def test_summaries_without_a_signature_are_only_words() -> None:
    """Other models' at Databricks: nobody wants them back."""
    piece = {"type": "summary_text", "text": "Think"}
    found = answered(whole({"content": [{"type": "reasoning", "summary": [piece]}, TEXT]}))
    assert (found.text, found.reasoning, found.details) == ("Hi", "Think", [])


@pytest.mark.parametrize("blocks", [5, "x", [5], [{}], [{"delta": 5}], [{"thinking": 5}], {}])
def test_what_is_no_block_is_left_out(blocks: Any) -> None:
    """It says nothing that text beside it would miss."""
    found = answered(whole({"content": "Hi", "thinking_blocks": blocks}))
    assert (found.text, found.reasoning, found.details) == ("Hi", "", [])


def test_an_object_of_reasoning_that_says_something_else_breaks_the_answer() -> None:
    """Once, and without saying what stands beside it twice."""
    odd = choice(content="a", reasoning={"steps": ["hm"]})
    events, failure = feed(StreamDecoder(), data(chunk(choice(1, content="b"), odd)) + END)
    assert isinstance(failure, ProtocolError)
    assert len(events) == 2
