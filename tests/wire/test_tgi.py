"""TGI's own wire: requests out, answers in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backends.errors import (
    ContextLengthExceeded,
    ProtocolError,
    RateLimited,
    RequestRejected,
    StreamTruncated,
)
from backends.types import (
    ChoiceEnd,
    Finish,
    FinishReason,
    HalfUsage,
    ResponseStart,
    TextDelta,
    Usage,
)
from backends.wire.completions_request import decode_request
from backends.wire.tgi_request import encode_request
from backends.wire.tgi_stream import TGIDecoder
from tests.wire.plain import CALL, chat, feed, sse
from tests.wire.test_sse import split

SYSTEM, USER = {"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}


def token(text: str, *, special: bool = False, **more: Any) -> dict[str, Any]:
    """Return an event with one token."""
    return {"index": 1, "token": {"id": 1, "text": text, "special": special}, **more}


def last(reason: str = "eos_token", **details: Any) -> dict[str, Any]:
    """Return the last event."""
    return token(
        "</s>", special=True, generated_text="all", details={"finish_reason": reason, **details}
    )


STREAM = sse(
    token("Gr"), token("üß"), token("<pad>", special=True), last(generated_tokens=4, input_length=9)
).replace(b"data: ", b"data:")


@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_text_comes_without_marks_however_the_bytes_are_split(cuts: list[int]) -> None:
    """The events have no space after their colon; special tokens are no text."""
    events, failure = feed(TGIDecoder(), *split(STREAM, cuts))
    assert failure is None
    assert events == [
        ResponseStart(None, None),
        TextDelta(0, "Gr"),
        TextDelta(0, "üß"),
        Finish((ChoiceEnd(0, "stop", "eos_token"),), Usage(9, 4)),
    ]


@pytest.mark.parametrize(
    ("event", "word", "reason"),
    [
        (token("</s>", special=True, generated_text="a", details=None), "eos_token", "stop"),
        (token("a", generated_text="a", details=None), "length", "length"),
    ],
)
def test_without_details_the_last_token_says_why_it_ended(
    event: dict[str, Any], word: str, reason: Any
) -> None:
    """And usage stays unknown."""
    events, _ = feed(TGIDecoder(), sse(token("a"), event))
    assert events[-1] == Finish((ChoiceEnd(0, reason, word),), None)


def test_a_prompt_that_nobody_counted_leaves_half_a_report() -> None:
    """Servers that say nothing of the input, or list none of its tokens."""
    events, _ = feed(TGIDecoder(), sse(token("a"), last("length", generated_tokens=2, prefill=[])))
    end = (ChoiceEnd(0, "length", "length"),)
    assert events[-1] == Finish(end, HalfUsage(None, 2))


def test_tokens_of_the_prompt_are_counted_where_they_are_listed() -> None:
    """Older servers list them instead of counting."""
    events, _ = feed(TGIDecoder(), sse(token("a"), last(generated_tokens=2, prefill=[{}, {}, {}])))
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == Usage(3, 2)


@given(st.lists(st.integers(0, 12), max_size=6), st.sampled_from(["END", "\n\n", "D!", "zzz"]))
def test_a_stop_text_never_reaches_the_client(cuts: list[int], stop: str) -> None:
    """Wherever tokens fall; what only looked like one comes after all."""
    said = "EN" + "E\nEND-D" + (stop if stop != "zzz" else "")
    before = said[: said.find(stop)] if stop in said else said
    said = said[: len(before) + len(stop)] if stop in said else said
    pieces = [piece.decode() for piece in split(said.encode(), cuts)]
    reason = "stop_sequence" if stop in said else "length"
    body = sse(*(token(piece) for piece in pieces), last(reason))
    events, failure = feed(TGIDecoder([stop]), body)
    assert failure is None
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == before


def test_an_answer_that_only_ends_like_a_stop_text_is_kept_whole() -> None:
    """Where the server says that something else ended it."""
    events, _ = feed(TGIDecoder(["END"]), sse(token("the EN"), last("length")))
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "the EN"


def test_a_whole_answer_says_the_same() -> None:
    """Alone or in a list, with or without details."""
    full = (
        b'{"generated_text": "hi", "details": {"finish_reason": "length", "generated_tokens": 1}}'
    )
    ends: list[tuple[bytes, FinishReason, str]] = [
        (full, "length", "length"),
        (b"[" + full + b"]", "length", "length"),
        (b'[{"generated_text": "hi"}]', "stop", "unknown"),
        (b'[{"summary_text": "hi"}]', "stop", "unknown"),
        (b'{"translation_text": "hi"}', "stop", "unknown"),
    ]
    for body, reason, word in ends:
        events, failure = feed(TGIDecoder(), body)
        assert failure is None
        usage = HalfUsage(None, 1) if b"generated_tokens" in body else None
        assert events[1:] == [TextDelta(0, "hi"), Finish((ChoiceEnd(0, reason, word),), usage)]


def test_another_tasks_answer_is_none() -> None:
    """Such as a classifier's."""
    _, failure = feed(TGIDecoder(), b'[{"label": "good", "score": 0.9}]')
    assert isinstance(failure, ProtocolError)


def test_errors_in_the_stream_are_what_they_say() -> None:
    """By the server's type; a text that is too long is known as one."""
    long = "`inputs` tokens + `max_new_tokens` must be <= 8"
    events, failure = feed(TGIDecoder(), sse({"error": long, "error_type": "validation"}))
    assert isinstance(failure, ContextLengthExceeded)
    assert not events
    full = {"error": "Model is overloaded", "error_type": "overloaded"}
    events, failure = feed(TGIDecoder(), sse(token("a"), full))
    assert isinstance(failure, RateLimited)
    assert TextDelta(0, "a") in events


def test_a_stream_without_its_last_event_is_truncated() -> None:
    """At any byte before it."""
    for at in range(STREAM.rfind(b"data:")):
        _, failure = feed(TGIDecoder(), STREAM[:at])
        assert isinstance(failure, StreamTruncated)


def test_the_request_says_it_in_the_servers_words() -> None:
    """A value that means off is left out, for the server refuses it."""
    request = chat(
        SYSTEM,
        USER,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        seed=1,
        repetition_penalty=1.1,
        stop=["x"],
    )
    body = encode_request(replace(request, output_bound=9), model="m")
    assert body == {
        "inputs": "be brief\nhi",
        "parameters": {
            "details": True,
            "return_full_text": False,
            "seed": 1,
            "repetition_penalty": 1.1,
            "do_sample": True,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "stop": ["x"],
            "max_new_tokens": 9,
        },
        "stream": True,
    }
    plain = encode_request(chat(temperature=0, top_p=1, top_k=-1), model="m")["parameters"]
    assert plain == {"details": True, "return_full_text": False, "do_sample": False}


def test_a_legacy_prompt_goes_as_it_is() -> None:
    """One text; several are for endpoints of another wire."""
    one = decode_request(b'{"model": "m", "prompt": "Once "}').request
    assert encode_request(one, model="m")["inputs"] == "Once "
    several = decode_request(b'{"model": "m", "prompt": ["a", "b"]}').request
    with pytest.raises(RequestRejected):
        encode_request(several, model="m")


@pytest.mark.parametrize(
    "messages",
    [
        [USER, {"role": "assistant", "content": "yes?"}, USER],
        [USER, USER],
        [SYSTEM],
        [{"role": "assistant", "content": None, "tool_calls": [CALL]}, USER],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
    ],
)
def test_a_conversation_is_refused(messages: list[dict[str, Any]]) -> None:
    """The server continues a text, and no template is made up for it."""
    with pytest.raises(RequestRejected):
        encode_request(chat(*messages), model="m")
