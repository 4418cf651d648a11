"""A null or a loosely typed field takes nothing of an answer with it, on any wire."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.collect import Collector
from backends.errors import ProtocolError
from backends.types import Finish, StreamEvent, TextDelta
from backends.wire.bedrock_stream import ConverseDecoder
from backends.wire.cohere_stream import CohereDecoder
from backends.wire.completions_stream import CompletionsDecoder
from backends.wire.decoder import AnswerDecoder
from backends.wire.gemini_stream import GeminiDecoder
from backends.wire.lenient import mend, read
from backends.wire.messages_stream import MessagesDecoder
from backends.wire.ollama_stream import OllamaDecoder
from backends.wire.openai_chat import StreamDecoder
from backends.wire.responses_stream import ResponsesDecoder
from backends.wire.tgi_stream import TGIDecoder
from tests.aws import event as frame
from tests.wire.plain import feed, lines, sse


def said(events: list[StreamEvent]) -> tuple[str, str, list[tuple[str, str]], str]:
    """Return what a complete answer adds up to: text, reasoning, calls, the upstream's reason."""
    assert isinstance(events[-1], Finish)
    assert events[-1].dropped_events == 0
    collector = Collector()
    collector.add(events)
    [choice] = collector.answer().choices
    calls = [(call.name, call.arguments) for call in choice.calls]
    return choice.text, choice.reasoning, calls, choice.raw_reason


def whole(decoder: AnswerDecoder, body: bytes) -> tuple[str, str, list[tuple[str, str]], str]:
    """Decode a body that must be a complete answer."""
    events, failure = feed(decoder, body)
    assert failure is None, failure
    return said(events)


def chat(*deltas: Any, **last: Any) -> bytes:
    """Return a chat stream of these choices."""
    end = {"index": 0, "delta": {}, "finish_reason": "stop"} | last
    return sse(*({"choices": [one]} for one in (*deltas, end))) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"index": None, "delta": {"content": "a"}}, ("a", "", [])),
        ({"index": "0", "delta": {"content": "a", "refusal": []}}, ("a", "", [])),
        ({"index": 0.0, "delta": {"content": "a", "tool_calls": {}}}, ("a", "", [])),
        ({"delta": {"content": "a", "reasoning": {"text": "hm"}}}, ("a", "hm", [])),
        ({"delta": {"content": "a", "reasoning": {"effort": "low"}}}, ("a", "", [])),
        ({"delta": {"content": "a"}, "finish_reason": {}}, ("a", "", [])),
        ({"delta": {"content": "a"}, "finish_reason": False}, ("a", "", [])),
        ({"delta": {"content": "a", "function_call": ""}}, ("a", "", [])),
        ({"delta": {"content": 5}}, ("5", "", [])),
        (
            {"delta": {"tool_calls": [{"index": "0", "function": {"name": "f"}}]}},
            ("", "", [("f", "{}")]),
        ),
        (
            {"delta": {"tool_calls": {"function": {"name": "f", "arguments": {"x": 1}}}}},
            ("", "", [("f", '{"x":1}')]),
        ),
        ({"delta": {"tool_calls": [None, {"function": {"name": "f"}}]}}, ("", "", [("f", "{}")])),
        ({"delta": {"content": 0}}, ("0", "", [])),
        ({"delta": {"content": "a", "reasoning": ["h", "m"]}}, ("a", "hm", [])),
        ({"delta": {"content": "a", "reasoning": [{"text": "h"}, "m", None]}}, ("a", "hm", [])),
        ({"delta": {"content": "a", "reasoning": {"content": ["hm"]}}}, ("a", "hm", [])),
        (
            {"delta": {"content": "a", "reasoning": {"summary": "hm", "effort": "low"}}},
            ("a", "hm", []),
        ),
        (
            {"delta": {"content": "a", "reasoning": {"summary": "auto", "effort": "low"}}},
            ("a", "", []),
        ),
        (
            {"delta": {"content": "a", "reasoning": {"text": "auto", "type": "t"}}},
            ("a", "auto", []),
        ),
        ({"delta": {"content": "a", "reasoning": {"text": None, "type": "t"}}}, ("a", "", [])),
        ({"delta": {"content": "a", "tool_calls": [[], {"function": {}}]}}, ("a", "", [])),
        (
            {"delta": {"tool_calls": [{"id": "c", "name": "f", "arguments": '{"x":1}'}]}},
            ("", "", [("f", '{"x":1}')]),
        ),
        (
            {"delta": {"tool_calls": [{"type": "tool_use", "name": "f", "input": {"x": 1}}]}},
            ("", "", [("f", '{"x":1}')]),
        ),
        (
            {"delta": {"tool_calls": [{"type": "custom", "name": "f", "input": "x"}]}},
            ("", "", [("f", "x")]),
        ),
    ],
)
def test_chat_is_read_for_what_it_stands_for(choice: Any, expected: Any) -> None:
    """Streamed or whole, by the same rules."""
    assert whole(StreamDecoder(), chat(choice))[:3] == expected
    message = {"message": choice["delta"], **{k: v for k, v in choice.items() if k != "delta"}}
    document = {"choices": [message | {"finish_reason": "stop"}]}
    assert whole(StreamDecoder(), json.dumps(document).encode())[:3] == expected


def messages(*events: Any, **start: Any) -> bytes:
    """Return a Messages stream with these deltas in its one block."""
    block = {"type": "text", "text": ""} | start
    return sse(
        {"type": "message_start", "message": {"id": "m", "usage": None}},
        {"type": "content_block_start", "index": None, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": one} for one in events),
        {"type": "content_block_stop", "index": None},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": None},
        {"type": "message_stop", "index": None},
    )


def test_nulls_of_messages_are_absent() -> None:
    """Proxies that fill in every field of a delta send them with each."""
    nulls = dict.fromkeys(("text", "thinking", "signature", "partial_json"))
    text = {"type": "text_delta"} | nulls | {"text": "a"}
    assert whole(MessagesDecoder(), messages(text, {"type": "text_delta"} | nulls))[0] == "a"
    thought = {"type": "thinking_delta"} | nulls | {"thinking": "hm"}
    body = messages(thought, {"type": "signature_delta", "signature": None}, type="thinking")
    assert whole(MessagesDecoder(), body)[:2] == ("", "hm")
    piece = {"type": "input_json_delta", "partial_json": '{"x":1}'}
    body = messages(piece, {"type": "input_json_delta"} | nulls, type="tool_use", name="f", id="c")
    assert whole(MessagesDecoder(), body)[2] == [("f", '{"x":1}')]


OTHERS: dict[str, tuple[type[AnswerDecoder], bytes]] = {
    "completions": (
        CompletionsDecoder,
        sse(
            {"model": {}, "choices": [{"index": None, "text": "a", "finish_reason": False}]},
            {"choices": [{"index": "0", "text": None, "finish_reason": "stop"}]},
        ),
    ),
    "gemini": (
        GeminiDecoder,
        sse(
            {"candidates": [{"index": "0", "content": {"parts": {"text": "a", "thought": None}}}]},
            {
                "candidates": [
                    {"content": {"parts": [{"inlineData": [], "functionCall": []}]}},
                    None,
                ],
                "usageMetadata": [],
            },
            {"candidates": [{"finishReason": "stop", "finishMessage": {}}]},
        ),
    ),
    "cohere": (
        CohereDecoder,
        sse(
            {"type": "message-start", "id": "m", "index": None},
            {
                "type": "content-delta",
                "index": None,
                "delta": {"message": {"content": {"text": "a"}, "tool_plan": []}},
            },
            {"type": "message-end", "delta": {"finish_reason": "stop", "message": ""}},
        ),
    ),
    "ollama": (
        OllamaDecoder,
        lines(
            {"message": {"content": "a", "tool_calls": {}, "thinking": []}, "done": None},
            {"message": {}, "done": 1, "done_reason": "stop", "eval_count": "1"},
        ),
    ),
    "tgi": (
        TGIDecoder,
        sse(
            {"token": {"text": "a", "special": None}, "details": []},
            {
                "token": {"text": None, "special": True},
                "generated_text": "a",
                "details": {"finish_reason": "stop", "generated_tokens": "1"},
            },
        ),
    ),
    "responses": (
        ResponsesDecoder,
        sse(
            {"type": "response.created", "output_index": ""},
            {"type": "response.output_text.delta", "output_index": "0", "delta": "a"},
            {
                "type": "response.completed",
                "response": {"status": "completed", "incomplete_details": {"reason": "stop"}},
            },
        ),
    ),
    "converse": (
        ConverseDecoder,
        frame("contentBlockDelta", {"contentBlockIndex": None, "delta": {"text": "a"}})
        + frame("contentBlockStop", {"contentBlockIndex": "0"})
        + frame("messageStop", {"stopReason": "stop"})
        + frame("metadata", {"usage": None}),
    ),
}


@pytest.mark.parametrize("wire", OTHERS)
def test_other_wires_are_as_lenient(wire: str) -> None:
    """Nulls and empty things are absent, digits are a number."""
    decoder, body = OTHERS[wire]
    text, reasoning, calls, raw = whole(decoder(), body)
    assert (text, reasoning, calls) == ("a", "", [])
    assert raw in ("stop", "completed")


def test_half_a_character_beside_a_null_breaks_nothing() -> None:
    """Both are mended in one."""
    body = rb'data: {"choices": [{"index": null, "delta": {"content": "a\ud83d"}}]}' + b"\n\n"
    assert whole(StreamDecoder(), body + chat())[0] == "a\ufffd"


def test_a_name_of_another_type_takes_no_answer_with_it() -> None:
    """Nothing of what is said depends on the model's name."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}], "model": [["m"]]}
    assert whole(StreamDecoder(), sse(chunk) + chat())[0] == "a"


@pytest.mark.parametrize(
    "document", [{"choices": 5}, {"choices": ["a"]}, {"choices": [{"delta": "a"}]}]
)
def test_what_is_of_another_wire_stays_so(document: Any) -> None:
    """A field of the document itself that says something else is no slip."""
    for body in (sse(document), json.dumps(document).encode()):
        _, failure = feed(StreamDecoder(), body)
        assert failure is not None
    assert isinstance(feed(StreamDecoder(), sse(document))[1], ProtocolError)


class _Inner(msgspec.Struct):
    word: str = ""
    number: int = 0
    more: dict[str, Any] | None = None
    flag: bool = False
    part: float = 0.0


class _Outer(msgspec.Struct):
    inner: list[_Inner] | None = None
    at: int | None = None
    words: str | int | None = None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["word", "number", "more", "flag", "part", "text"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


_any = st.none() | st.integers() | _json


@given(
    st.fixed_dictionaries(
        {"inner": _any, "at": _any, "words": st.text() | _any, "other": _any},
    )
)
def test_what_was_mended_can_be_read(document: dict[str, Any]) -> None:
    """It fits, unless it was refused; what fits from the first is not changed, and no word lost."""
    try:
        mended = mend(document, _Outer)
    except msgspec.ValidationError:
        return
    found = msgspec.convert(mended, _Outer)
    inner = document["inner"]
    for entry in inner if isinstance(inner, list) else [inner]:
        if isinstance(entry, dict) and entry.get("word"):
            assert any(str(entry["word"]) == one.word for one in found.inner or ())
    try:
        fits = msgspec.convert(document, _Outer)
    except msgspec.ValidationError:
        return
    assert read(document, _Outer) == fits
    assert found == fits


def test_events_are_well_typed_after_mending() -> None:
    """An index is a number again."""
    events, _ = feed(StreamDecoder(), chat({"index": "0", "delta": {"content": "a"}}))
    assert TextDelta(0, "a") in events
