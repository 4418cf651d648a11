"""Ollama's own wire: requests out, lines in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backends.errors import ProtocolError, RequestRejected, StreamTruncated, UpstreamFailed
from backends.types import (
    ChoiceEnd,
    Finish,
    HalfUsage,
    ReasoningDelta,
    ResponseStart,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire import sse
from backends.wire.ndjson import NDJSONDecoder
from backends.wire.ollama_request import encode_request
from backends.wire.ollama_stream import OllamaDecoder, OllamaEmbedDecoder
from tests.wire.plain import CALL, TOOL, chat, feed, lines
from tests.wire.test_sse import split

DATA = "data:image/png;base64,AAAA"


def said(**message: Any) -> dict[str, Any]:
    """Return a line of an answer that goes on."""
    return {"model": "m:1b", "message": {"role": "assistant", **message}, "done": False}


def done(reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    """Return the last line."""
    words = {} if reason is None else {"done_reason": reason}
    return {"message": {"role": "assistant", "content": ""}, "done": True, **words, **more}


STREAM = lines(
    said(content="", thinking="hm"),
    said(content="Grü"),
    said(content="ß 😊"),
    done(prompt_eval_count=7, eval_count=3, total_duration=5),
)


@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_thoughts_text_and_counts_come_however_the_bytes_are_split(cuts: list[int]) -> None:
    """One document a line; durations go out as an extra."""
    events, failure = feed(OllamaDecoder(), *split(STREAM, cuts))
    assert failure is None
    assert events == [
        ResponseStart(None, "m:1b"),
        ReasoningDelta(0, "hm"),
        TextDelta(0, "Grü"),
        TextDelta(0, "ß 😊"),
        Finish(
            (ChoiceEnd(0, "stop", "stop"),),
            Usage(7, 3),
            0,
            {"durations_ns": {"total_duration": 5}},
        ),
    ]


@pytest.mark.parametrize("documents", [1, 2])
@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_a_document_over_several_lines_is_one(documents: int, cuts: list[int]) -> None:
    """As some proxies write it, whatever stands on a line of its own."""
    call = {"function": {"name": "look", "arguments": {"at": ["a", "b"], "n": [1, 2], "s": "}"}}}
    spread = [said(content="Grü"), done(message={"content": "ß", "tool_calls": [call]})]
    body = "\n".join(json.dumps(line, indent=2) for line in spread[-documents:]).encode()
    events, failure = feed(OllamaDecoder(), *split(body, cuts))
    assert failure is None
    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert texts == ["Grü", "ß"][-documents:]
    pieces = [event.arguments for event in events if isinstance(event, ToolCallDelta)]
    assert json.loads("".join(pieces)) == call["function"]["arguments"]


def test_a_document_over_several_lines_is_mended_or_refused_as_any_other() -> None:
    """Its types may be loose; lines that make no document are dropped, and counted."""
    loose = b'{\n"message": {"content": "a"},\n"done": true,\n"eval_count": "3"\n}\n'
    events, failure = feed(OllamaDecoder(), loose)
    assert failure is None
    assert TextDelta(0, "a") in events
    broken = b'{\n"message": no JSON\n}\n'
    events, _ = feed(OllamaDecoder(), broken + lines(done()))
    last = events[-1]
    assert isinstance(last, Finish)
    assert last.dropped_events == 1
    for unended in (b"{\n", b'{\n"message": {"content": "lost"},\n'):
        events, _ = feed(OllamaDecoder(), unended + lines(done()))
        last = events[-1]
        assert isinstance(last, Finish)
        assert last.dropped_events == unended.count(b"\n")
    _, failure = feed(OllamaDecoder(), b"{\n" + b'"a": 1,\n' * 200_000)
    assert isinstance(failure, ProtocolError)


def test_arguments_are_objects_and_calls_may_come_on_lines_of_their_own() -> None:
    """Without ids they get one each; a stop with calls is ``tool_calls``."""
    ids = iter(["new-1", "new-2"])
    body = lines(
        said(content="", tool_calls=[{"function": {"name": "look", "arguments": {"at": 1}}}]),
        said(content="", tool_calls=[{"function": {"name": "now", "arguments": {}}}]),
        done(),
    )
    events, failure = feed(OllamaDecoder(lambda: next(ids)), body)
    assert failure is None
    assert events[1:] == [
        ToolCallDelta(0, 0, "new-1", "look", '{"at":1}'),
        ToolCallDelta(0, 1, "new-2", "now", "{}"),
        Finish((ChoiceEnd(0, "tool_calls", "stop"),), None),
    ]


@pytest.mark.parametrize(
    ("word", "reason"), [("stop", "stop"), ("length", "length"), (None, "stop")]
)
def test_the_servers_words_are_understood(word: str | None, reason: Any) -> None:
    """Old servers say only that it is done."""
    events, _ = feed(OllamaDecoder(), lines(said(content="a"), done(word)))
    assert events[-1] == Finish((ChoiceEnd(0, reason, word or "stop"),), None)


def test_half_a_count_is_half_a_report() -> None:
    """A prompt that was cached is not counted there."""
    events, _ = feed(OllamaDecoder(), lines(said(content="a"), done(eval_count=1)))
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == HalfUsage(None, 1)


def test_an_error_line_ends_the_answer_after_what_was_said() -> None:
    """With the server's words."""
    events, failure = feed(OllamaDecoder(), lines(said(content="a"), {"error": "out of memory"}))
    assert TextDelta(0, "a") in events
    assert isinstance(failure, UpstreamFailed)
    assert failure.message == "out of memory"


def test_a_stream_without_its_last_line_is_truncated() -> None:
    """At any byte before it."""
    for at in range(STREAM.rfind(b'{"message"')):
        _, failure = feed(OllamaDecoder(), STREAM[:at])
        assert isinstance(failure, StreamTruncated)


def test_a_last_line_needs_no_end() -> None:
    """Nor does a whole answer, which is one line."""
    events, failure = feed(OllamaDecoder(), STREAM.rstrip())
    assert failure is None
    assert isinstance(events[-1], Finish)


def test_lines_are_bounded() -> None:
    """In one read or many; empty ones and CRLF are nothing."""
    [line] = NDJSONDecoder().feed(b"\n\r\n{}\r\n  \n")
    assert line.strip() == b"{}"
    long = b'{"x": "' + b"x" * sse.MAX_EVENT_BYTES
    for reads in ([long], [b"x" * 1000] * 1100):
        _, failure = feed(OllamaDecoder(), *reads)
        assert isinstance(failure, ProtocolError)


def test_the_request_says_it_in_the_servers_words() -> None:
    """And the vendor's own client takes it."""
    request = chat(
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": DATA}},
            ],
        },
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
        temperature=0.5,
        repetition_penalty=1.1,
        stop="END",
        tools=[TOOL],
        response_format={"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        reasoning={"effort": "low"},
        provider={"options": {"ollama": {"keep_alive": "1h"}}},
    )
    body = encode_request(
        replace(request, output_bound=9), model="m", options_key="ollama", window=8192
    )
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "see", "images": ["AAAA"]},
            {
                "role": "assistant",
                "content": "",
                "thinking": "hm",
                "tool_calls": [
                    {"id": "call_1", "function": {"name": "look", "arguments": {"at": 1}}}
                ],
            },
            {"role": "tool", "content": "seen", "tool_call_id": "call_1", "tool_name": "look"},
        ],
        "stream": True,
        "options": {
            "temperature": 0.5,
            "repeat_penalty": 1.1,
            "stop": ["END"],
            "num_predict": 9,
            "num_ctx": 8192,
        },
        "tools": [TOOL],
        "format": {"type": "object"},
        "think": "low",
        "keep_alive": "1h",
    }


@pytest.mark.parametrize(
    ("fields", "think"),
    [
        ({}, None),
        ({"reasoning": {"enabled": True}}, True),
        ({"reasoning": {"enabled": False}}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "xhigh"}, "high"),
    ],
)
def test_whether_and_how_much_to_think(fields: dict[str, Any], think: Any) -> None:
    """In the three steps that the server knows."""
    assert encode_request(chat(**fields), model="m").get("think") == think


@pytest.mark.parametrize("url", ["https://x.example/a.png", "data:image/png,plain"])
def test_an_image_that_would_have_to_be_fetched_is_refused(url: str) -> None:
    """Nothing is fetched here."""
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(RequestRejected, match="data: URLs"):
        encode_request(chat({"role": "user", "content": [part]}), model="m")


def test_arguments_that_are_no_object_are_refused() -> None:
    """The wire has no other form for them."""
    bad = {**CALL, "function": {"name": "look", "arguments": "[1]"}}
    turn = {"role": "assistant", "content": None, "tool_calls": [bad]}
    with pytest.raises(RequestRejected, match="look"):
        encode_request(chat(turn), model="m")


def test_an_embed_answer_of_another_shape_is_none() -> None:
    """Numbers are needed."""
    _, failure = feed(OllamaEmbedDecoder(1), b'{"embedding": [1.0]}')
    assert isinstance(failure, ProtocolError)
