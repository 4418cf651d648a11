"""Legacy completions: a client's body in, its answer out."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from backends.collect import Collector
from backends.types import (
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    Usage,
)
from backends.wire.checks import InvalidRequest
from backends.wire.completions import COMPLETIONS
from backends.wire.completions_request import decode_request
from backends.wire.legacy_logprobs import from_legacy, to_legacy

HEAD = AnswerHead("gen-1", "acme/text", "acme", 1_700_000_000)
USAGE, COST = Usage(3, 5), Cost(1_500)
LOGPROBS = {
    "content": [
        {
            "token": "on",
            "logprob": -0.5,
            "bytes": None,
            "top_logprobs": [{"token": "on", "logprob": -0.5}, {"token": "in", "logprob": -2.0}],
        },
        {"token": "ce", "logprob": None, "bytes": None, "top_logprobs": []},
    ]
}


def decode(**fields: Any) -> ChatRequest:
    """Decode the smallest good body with these fields."""
    body = {"model": "acme/text", "prompt": "Once"} | fields
    return decode_request(json.dumps(body).encode()).request


def refused(**fields: Any) -> InvalidRequest:
    """Return why the smallest good body with these fields is refused."""
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)
    return caught.value


def test_one_text_is_also_a_message() -> None:
    """So that an endpoint that knows only messages can serve it."""
    request = decode()
    assert request.operation == "completions"
    assert request.inputs == ("Once",)
    assert request.messages == ({"role": "user", "content": "Once"},)
    assert (request.required, request.max_tokens, request.n) == (frozenset(), None, 1)
    assert request.content_bytes == 4
    assert request.native is not None
    assert request.native.body["prompt"] == "Once"


@pytest.mark.parametrize(
    ("prompt", "inputs", "content_bytes"),
    [
        (["a", "b"], ("a", "b"), 2),
        ([1, 2, 3], ([1, 2, 3],), 12),
        ([[1, 2], [3]], ([1, 2], [3]), 12),
    ],
)
def test_what_is_no_single_text_needs_an_endpoint_of_the_wire(
    prompt: Any, inputs: tuple[Any, ...], content_bytes: int
) -> None:
    """No message can say it, and each prompt has answers of its own."""
    request = decode(prompt=prompt, n=2)
    assert request.inputs == inputs
    assert request.messages == ()
    assert request.required == {"completions.prompt", "n"}
    assert request.n == 2 * len(inputs)
    assert request.content_bytes == content_bytes


def test_fields_of_the_wire_are_required_only_with_a_value() -> None:
    """Defaults, null and a ``best_of`` that changes nothing count as absent."""
    plain = {"suffix": "", "echo": False, "logprobs": None, "best_of": 1, "temperature": 1}
    assert decode(**plain).required == frozenset()
    given_ = {"suffix": "end", "echo": True, "logprobs": 0, "temperature": 0.5}
    assert decode(**given_).required == {
        "completions.suffix",
        "completions.echo",
        "completions.logprobs",
        "temperature",
    }
    assert decode(**given_).params == {"temperature": 0.5}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["a", [1]], "model": None}, "model"),
        ({"prompt": ["a", []]}, "prompt[1]"),
        ({"prompt": [1, -1]}, "prompt[0]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": ["a"] * 1000, "n": 3}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": 1}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages"),
        ({"tools": []}, "tools"),
        ({"session_id": "s"}, "session_id"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """Before anything is planned."""
    assert refused(**fields).param == param


@given(st.lists(st.text(max_size=20), min_size=1, max_size=20))
def test_the_bound_covers_every_prompts_bytes(prompts: list[str]) -> None:
    """And a frame around each further one."""
    request = decode(prompt=prompts)
    assert request.prompt_bytes >= request.content_bytes + 16 * (len(prompts) - 1)


def answer(*events: StreamEvent) -> dict[str, Any]:
    """Return the whole answer that events add up to."""
    collector = Collector()
    collector.add([ResponseStart(), *events, Finish((ChoiceEnd(0, "stop", "eos"),), USAGE)])
    document: dict[str, Any] = json.loads(
        COMPLETIONS.whole(HEAD, decode(), collector.answer(), USAGE, COST)
    )
    return document


def chunk(data: bytes) -> dict[str, Any]:
    """Return the document of one event."""
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    document: dict[str, Any] = json.loads(data[6:])
    return document


def test_a_whole_answer_is_openais_with_openrouters_additions() -> None:
    """OpenAI's own model takes it."""
    document = answer(TextDelta(0, "upon"), TextDelta(0, " a"))
    read = Completion.model_validate(document)
    assert (read.object, read.choices[0].text, read.choices[0].finish_reason) == (
        "text_completion",
        "upon a",
        "stop",
    )
    assert document["choices"][0]["native_finish_reason"] == "eos"
    assert document["provider"] == "acme"
    assert document["usage"]["cost"] == 0.0000015


def test_a_stream_says_the_same_and_ends_as_chats_does() -> None:
    """Text, then one chunk with reason and usage, then the end marker."""
    encoder = COMPLETIONS.encoder(HEAD, decode())
    assert encoder.open() == b""
    first, second = chunk(encoder.delta(TextDelta(0, "é"))), chunk(encoder.delta(TextDelta(3, "b")))
    assert (first["choices"][0]["text"], second["choices"][0]["index"]) == ("é", 3)
    assert first["choices"][0].keys() == second["choices"][0].keys()
    closing, done = encoder.finish(
        Finish((ChoiceEnd(0, "length", "max"),), USAGE), USAGE, COST
    ).split(b"\n\n", 1)
    assert done == b"data: [DONE]\n\n"
    last = chunk(closing + b"\n\n")
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["usage"]["completion_tokens"] == 5


def test_an_error_ends_the_stream_without_its_marker() -> None:
    """With what is charged."""
    data = COMPLETIONS.encoder(HEAD, decode()).error({"code": 502, "message": "no"}, USAGE, COST)
    document = chunk(data)
    assert (document["error"]["code"], document["choices"][0]["finish_reason"]) == (502, "error")
    assert document["usage"]["prompt_tokens"] == 3


def test_a_refusal_after_some_text_is_in_the_whole_answer_too() -> None:
    """As it is in the stream, where both are pieces of the text."""
    document = answer(TextDelta(0, "Well. "), RefusalDelta(0, "I will not"))
    assert document["choices"][0]["text"] == "Well. I will not"


def test_what_a_chat_model_thinks_or_refuses_is_kept() -> None:
    """A refusal is the answer's text; thoughts stand beside it."""
    document = answer(ReasoningDelta(0, "hm"), RefusalDelta(0, "I will not"))
    assert document["choices"][0]["text"] == "I will not"
    assert document["choices"][0]["reasoning"] == "hm"
    encoder = COMPLETIONS.encoder(HEAD, decode())
    assert chunk(encoder.delta(ReasoningDelta(0, "hm")))["choices"][0]["reasoning"] == "hm"
    assert chunk(encoder.delta(RefusalDelta(0, "no")))["choices"][0]["text"] == "no"


def test_log_probabilities_have_the_legacy_shape_and_places_in_the_text() -> None:
    """Streamed in pieces, the places go on."""
    encoder = COMPLETIONS.encoder(HEAD, decode())
    pieces = [chunk(encoder.delta(TextDelta(0, "once", LOGPROBS))) for _ in range(2)]
    assert [p["choices"][0]["logprobs"]["text_offset"] for p in pieces] == [[0, 2], [4, 6]]
    [choice] = answer(TextDelta(0, "once", LOGPROBS))["choices"]
    assert choice["logprobs"] == {
        "tokens": ["on", "ce"],
        "token_logprobs": [-0.5, None],
        "top_logprobs": [{"on": -0.5, "in": -2.0}, None],
        "text_offset": [0, 2],
    }


def test_log_probabilities_survive_both_ways() -> None:
    """From chat's shape to the legacy one and back."""
    assert from_legacy(to_legacy(LOGPROBS["content"], 0)) == LOGPROBS
    assert from_legacy(None) is None
    assert from_legacy({"tokens": []}) is None
    assert msgspec.json.encode(from_legacy({"tokens": ["a"], "token_logprobs": None}))


def test_a_suffix_is_part_of_the_prompt() -> None:
    """What the model reads after the gap counts as what it reads before."""
    body = {"model": "m", "prompt": "süß", "suffix": "süß"}
    assert decode_request(json.dumps(body).encode()).request.content_bytes == 10
