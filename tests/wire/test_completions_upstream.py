"""Plain completions: prompts out, and answers of their own shape in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import BackendError, ProtocolError, RequestRejected, StreamTruncated
from backends.types import ChoiceEnd, Finish, Native, ResponseStart, StreamEvent, TextDelta, Usage
from backends.wire.completions_request import encode_request
from backends.wire.completions_stream import CompletionsDecoder
from tests.contracts.backend_contract import replace_request
from tests.upstream import DONE, data, usage
from tests.wire.test_sse import split


def piece(text: str, index: int = 0, reason: str | None = None) -> dict[str, Any]:
    """Return a chunk."""
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
    return {"id": "c-1", "object": "text_completion", "model": "m", "choices": [choice]}


def play(*reads: bytes) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode a body that arrives in these reads."""
    decoder = CompletionsDecoder()
    events = [event for read in reads for event in decoder.feed(read)]
    events += decoder.end()
    return events, decoder.failure


def sent(**changes: Any) -> dict[str, Any]:
    """Return the body for a request."""
    return encode_request(replace_request(**changes), model="up")


BODY = b"".join(
    [
        data(piece("Grüß ")),
        data(piece("b", 1)),
        data(piece("Gott 🌍", 0, "length")),
        data(piece("", 1, "stop")),
        data({"choices": [], "usage": usage(3, 4)}),
        DONE,
    ]
)


@given(st.lists(st.integers(0, len(BODY)), max_size=12))
def test_a_stream_is_read_however_it_is_cut(cuts: list[int]) -> None:
    """Text by choice, an end for each, and the counts."""
    events, failure = play(*split(BODY, cuts))
    assert failure is None
    assert events == [
        ResponseStart("c-1", "m"),
        TextDelta(0, "Grüß "),
        TextDelta(1, "b"),
        TextDelta(0, "Gott 🌍"),
        Finish((ChoiceEnd(0, "length", "length"), ChoiceEnd(1, "stop", "stop")), Usage(3, 4)),
    ]


@given(st.integers(0, BODY.index(b'"length"')))
def test_a_cut_stream_is_never_finished(at: int) -> None:
    """Whatever came before is kept."""
    events, failure = play(BODY[:at])
    assert isinstance(failure, StreamTruncated)
    assert not any(isinstance(event, Finish) for event in events)


def test_a_whole_answer_is_read() -> None:
    """Its shape is that of a chunk."""
    whole = {**piece("a", 0, "stop"), "usage": usage(3, 1), "system_fingerprint": "fp"}
    events, failure = play(json.dumps(whole).encode())
    assert failure is None
    assert events[1] == TextDelta(0, "a")
    assert events[-1] == Finish(
        (ChoiceEnd(0, "stop", "stop"),), Usage(3, 1), extras={"system_fingerprint": "fp"}
    )


def test_errors_and_other_wires_are_told() -> None:
    """What came before an error is kept."""
    events, failure = play(data(piece("a")) + data({"error": {"message": "no", "code": 400}}))
    assert isinstance(failure, RequestRejected)
    assert TextDelta(0, "a") in events
    assert isinstance(play(data({"choices": 5}))[1], ProtocolError)


def test_the_clients_own_document_travels_as_it_is() -> None:
    """Except for what is the gateway's, what the endpoint lacks, and the limit."""
    own = {
        "model": "x", "prompt": ["a", "b"], "suffix": "s", "echo": True, "top_k": 5, "seed": 7,
        "user": "u", "provider": {}, "max_tokens": 9, "stream": False, "logprobs": 2,
    }  # fmt: skip
    body = sent(
        operation="completions", native=Native("completions", own), params={"seed": 7},
        inputs=("a", "b"), output_bound=9,
    )  # fmt: skip
    assert body == {
        "model": "up", "prompt": ["a", "b"], "suffix": "s", "echo": True, "seed": 7,
        "logprobs": 2, "max_tokens": 9, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_one_user_message_is_a_prompt() -> None:
    """Text before it from the system, and chat's log probabilities, have a form here."""
    body = sent(
        messages=(
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
        ),
        params={"logprobs": True, "top_logprobs": 3, "max_completion_tokens": 64, "tools": []},
    )
    assert (body["prompt"], body["logprobs"], body["max_tokens"]) == ("be brief\n\na", 3, 64)
    assert not {"top_logprobs", "max_completion_tokens", "tools", "messages"} & set(body)
    assert sent(operation="completions", inputs=("p",), messages=())["prompt"] == "p"


@pytest.mark.parametrize(
    "messages",
    [
        (),
        ({"role": "assistant", "content": "a"},),
        ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},),
    ],
)
def test_a_conversation_is_refused_by_name(messages: Any) -> None:
    """There is no template here that would write it as one prompt."""
    with pytest.raises(RequestRejected, match="this endpoint"):
        sent(messages=messages)


@pytest.mark.parametrize("inside", [False, True])
def test_an_error_says_more_than_the_reason_beside_it(inside: bool) -> None:
    """Beside the choice or in it; what was said with it was said before."""
    error = {"error": {"code": 400, "message": "no"}}
    broken = piece("b", 0, "error")
    if inside:
        broken["choices"][0] |= error
    events, failure = play(data(piece("a")) + data(broken | ({} if inside else error)) + DONE)
    assert (type(failure), str(failure)) == (RequestRejected, "no")
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["a", "b"]
