"""Errors under HTTP 200 in shapes that no wire has: their words are not lost, whatever the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import (
    BackendError,
    ContentFiltered,
    EndpointRejected,
    RateLimited,
    RequestRejected,
    StreamBroken,
    UpstreamFailed,
)
from backends.types import Finish, TextDelta
from backends.wire.cohere_stream import CohereDecoder
from backends.wire.completions_stream import CompletionsDecoder
from backends.wire.decoder import AnswerDecoder
from backends.wire.embeddings_stream import EmbeddingsDecoder
from backends.wire.failure import error_in
from backends.wire.gemini_stream import GeminiDecoder
from backends.wire.messages_stream import MessagesDecoder
from backends.wire.ollama_stream import OllamaDecoder
from backends.wire.openai_chat import StreamDecoder
from backends.wire.responses_stream import ResponsesDecoder
from backends.wire.tgi_stream import TGIDecoder
from tests.wire.plain import feed, sse
from tests.wire.test_sse import split

DECODERS: dict[str, Callable[[], AnswerDecoder]] = {
    "chat": StreamDecoder,
    "chat that implies a stop": lambda: StreamDecoder(implied_reason="stop"),
    "completions": CompletionsDecoder,
    "responses": ResponsesDecoder,
    "messages": MessagesDecoder,
    "gemini": GeminiDecoder,
    "cohere": CohereDecoder,
    "tgi": TGIDecoder,
    "ollama": OllamaDecoder,
}
ERRORS: tuple[tuple[dict[str, Any], type[BackendError]], ...] = (
    ({"message": "no birds"}, UpstreamFailed),
    ({"detail": "no birds"}, UpstreamFailed),
    ({"detail": [{"loc": ["body"], "msg": "no birds"}]}, UpstreamFailed),
    ({"title": "T", "status": 429, "detail": "no birds"}, RateLimited),
    ({"code": 400, "message": "no birds"}, RequestRejected),
    ({"code": "429", "message": "no birds", "data": None}, RateLimited),
    ({"type": "error", "message": "no birds"}, UpstreamFailed),
    ({"type": "invalid_request_error", "message": "no birds"}, RequestRejected),
    ({"object": "error", "message": "no birds", "code": 400}, RequestRejected),
    (
        {"result": None, "success": False, "errors": [{"code": 7009, "message": "no birds"}]},
        UpstreamFailed,
    ),
    (
        {"id": "x", "choices": None, "base_resp": {"status_code": 1004, "status_msg": "no birds"}},
        EndpointRejected,
    ),
    ({"base_resp": {"status_code": 1002, "status_msg": "no birds"}}, RateLimited),
    ({"base_resp": {"status_code": 1026, "status_msg": "no birds"}}, ContentFiltered),
    ({"base_resp": {"status_code": 1000, "status_msg": "no birds"}}, UpstreamFailed),
)
KINDS = pytest.mark.parametrize(("document", "kind"), ERRORS)
WIRES = pytest.mark.parametrize("wire", DECODERS)


@WIRES
@KINDS
def test_a_whole_body_tells_why(wire: str, document: Any, kind: type[BackendError]) -> None:
    """As if its words stood in ``error``."""
    _, failure = feed(DECODERS[wire](), json.dumps(document).encode())
    assert type(failure) is kind
    assert failure.message == "no birds"


@pytest.mark.parametrize("wire", [wire for wire in DECODERS if wire != "ollama"])
@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"], ids=["cut", "done"])
@KINDS
def test_an_event_tells_why(wire: str, end: bytes, document: Any, kind: type[BackendError]) -> None:
    """Also where the stream goes on to its marker, and however the reads are cut."""
    body = sse(document) + end
    _, failure = feed(DECODERS[wire](), body)
    _, again = feed(DECODERS[wire](), *split(body, [5, len(body) // 2]))
    assert type(failure) is type(again) is kind
    assert failure.message == "no birds"


@KINDS
def test_a_line_tells_why(document: Any, kind: type[BackendError]) -> None:
    """Of newline-delimited JSON."""
    _, failure = feed(OllamaDecoder(), json.dumps(document).encode() + b"\n")
    assert (type(failure), str(failure)) == (kind, "no birds")


@KINDS
def test_embeddings_tell_why(document: Any, kind: type[BackendError]) -> None:
    """They are always whole."""
    _, failure = feed(EmbeddingsDecoder(1), json.dumps(document).encode())
    assert (type(failure), str(failure)) == (kind, "no birds")


def test_what_was_said_before_it_is_kept() -> None:
    """An answer that breaks with such an error is no finished one, even where a stop is implied."""
    body = sse({"choices": [{"delta": {"content": "hello"}}]}) + sse({"message": "no birds"})
    for decoder in (StreamDecoder(), StreamDecoder(implied_reason="stop")):
        events, failure = feed(decoder, body + b"data: [DONE]\n\n")
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["hello"]
        assert (type(failure), str(failure)) == (UpstreamFailed, "no birds")


@pytest.mark.parametrize("wire", [wire for wire in DECODERS if wire not in ("ollama", "cohere")])
@pytest.mark.parametrize("data", [b"no birds", b'"no birds"', b'{"message": "no birds"}'])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
def test_an_event_named_error_may_hold_plain_words(wire: str, data: bytes, end: bytes) -> None:
    """The name says that it is one; without it such words are damage."""
    line_end = b"\r\n" if b"\r" in end else b"\n"
    body = b"event: error" + line_end + b"data: " + data + end
    for reads in ([body], split(body, list(range(len(body))))):
        _, failure = feed(DECODERS[wire](), *reads)
        assert (type(failure), str(failure)) == (UpstreamFailed, "no birds")


@pytest.mark.parametrize("space", [b" ", b""])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"", b"\n\ndata: [DONE]\n\n"])
def test_a_field_named_error_holds_one(space: bytes, end: bytes) -> None:
    """As llama.cpp's server wrote them; what was said before is kept, however the reads are cut."""
    body = sse({"choices": [{"delta": {"content": "hello"}}]})
    body += b"error:" + space + b'{"code": 429, "message": "no birds"}' + end
    for reads in ([body], split(body, list(range(len(body))))):
        events, failure = feed(StreamDecoder(), *reads)
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["hello"]
        assert (type(failure), str(failure)) == (RateLimited, "no birds")


def test_the_name_is_of_its_event_only() -> None:
    """Damage after an event of another name, or of none, is damage."""
    answer = sse({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]})
    for noise in (b"event: note\ndata: words\n\n", b"data: words\n\n"):
        body = b"event: error\ndata: {}\n\n" + noise + answer + b"data: [DONE]\n\n"
        events, failure = feed(StreamDecoder(), body)
        assert failure is None
        assert isinstance(events[-1], Finish)
        assert events[-1].dropped_events == 1


GOOD: dict[str, dict[str, Any]] = {
    "chat": {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]},
    "completions": {"choices": [{"text": "hi", "finish_reason": "stop"}]},
    "responses": {
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    },
    "messages": {
        "type": "message",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
    },
    "gemini": {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]},
    "cohere": {"message": {"content": [{"text": "hi"}]}, "finish_reason": "COMPLETE"},
    "tgi": {"generated_text": "hi", "details": {"finish_reason": "eos_token"}},
    "ollama": {"message": {"content": "hi"}, "done": True, "done_reason": "stop"},
}


@pytest.mark.parametrize("wire", GOOD)
@pytest.mark.parametrize(
    "more",
    [
        {"detail": "served from a cache"},
        {"message": "ok", "code": 0},
        {"msg": "ok", "code": 200},
        {"success": True, "errors": [], "messages": []},
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
    ],
)
def test_a_good_answer_may_have_such_fields(wire: str, more: dict[str, Any]) -> None:
    """What ended as an answer must is never judged."""
    document = {**more, **GOOD[wire]}
    events, failure = feed(DECODERS[wire](), json.dumps(document).encode())
    assert failure is None
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["hi"]
    if wire != "chat":
        return
    choices = [{"delta": {"content": "hi"}, "finish_reason": "stop"}]
    body = sse({**more, "choices": choices}) + sse({**more, "choices": []})
    events, failure = feed(StreamDecoder(), body + b"data: [DONE]\n\n")
    assert failure is None


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"delta": {"content": "a"}}], "message": "m"},
        {"object": "chat.completion.chunk", "choices": [], "message": "queued"},
        {"type": "message_start", "message": {"id": "m", "content": []}},
        {"generated_text": "", "message": "m"},
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"code": 0, "message": "success"},
        {"hello": "world"},
        ["message"],
        "message",
        {},
    ],
)
def test_what_is_no_error_is_none(document: Any) -> None:
    """A cut stays a cut."""
    assert error_in(json.dumps(document).encode()) is None


@given(
    st.dictionaries(
        st.sampled_from(
            ["message", "detail", "code", "type", "object", "errors", "base_resp", "status",
             "choices", "content", "error"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["message", "status_code", "status_msg", "code"]), inner
                )
            ),
            max_leaves=4,
        ),
    )
)  # fmt: skip
def test_no_document_is_too_strange(document: dict[str, Any]) -> None:
    """An error of ours with words, or none; and whole, an answer of no wire in any case."""
    body = json.dumps(document).encode()
    error = error_in(body)
    assert error is None or error.message
    for wire in ("messages", "responses", "tgi"):
        _, failure = feed(DECODERS[wire](), body)
        assert isinstance(failure, BackendError)
        assert error is None or type(failure) is type(error) or isinstance(failure, StreamBroken)
