"""Embeddings: a client's body in, an upstream's body out, and vectors back."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.collect import Collector
from backends.errors import BackendError, ProtocolError, StreamTruncated
from backends.types import (
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Finish,
    ResponseStart,
    StreamEvent,
    Usage,
    VectorDelta,
)
from backends.wire.checks import InvalidRequest
from backends.wire.embeddings import EMBEDDINGS
from backends.wire.embeddings_request import decode_request, encode_request
from backends.wire.embeddings_stream import EmbeddingsDecoder
from backends.wire.vectors import base64_text, floats
from tests.wire.test_sse import split

HEAD = AnswerHead("gen-1", "acme/embed", "acme", 1_700_000_000)


def decode(**fields: Any) -> ChatRequest:
    """Decode the smallest good body with these fields."""
    body = {"model": "acme/embed", "input": "a text"} | fields
    return decode_request(json.dumps(body).encode()).request


def document(*vectors: Any, **more: Any) -> bytes:
    """Return an upstream's answer."""
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return json.dumps(
        {"object": "list", "data": data, "model": "m", "usage": usage} | more
    ).encode()


def play(inputs: int, *reads: bytes) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode a body that arrives in these reads."""
    decoder = EmbeddingsDecoder(inputs)
    events = [event for read in reads for event in decoder.feed(read)]
    return events + decoder.end(), decoder.failure


def test_the_request_has_inputs_and_no_messages() -> None:
    """It needs an endpoint that embeds, and has no output."""
    request = decode(user="u", encoding_format="base64")
    assert (request.operation, request.inputs, request.messages) == ("embeddings", ("a text",), ())
    assert request.required == {"embeddings"}
    assert (request.params, request.n, request.max_tokens) == ({}, 1, None)


def test_what_an_endpoint_must_be_able_to_do_is_required_by_name() -> None:
    """Token ids, dimensions, the kind of input."""
    request = decode(input=[[1, 2], [3]], dimensions=64, input_type="search_query")
    assert request.required == {
        "embeddings",
        "embeddings.input",
        "embeddings.dimensions",
        "embeddings.input_type",
    }
    assert request.content_bytes == 12


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"content": []}]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"stream": True}, "stream"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"model": None}, "model"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """Before anything is planned."""
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)
    assert caught.value.param == param


def test_an_upstream_of_the_wire_gets_what_the_client_said_and_nothing_of_the_gateway() -> None:
    """Model renamed; user, provider and models stay here."""
    request = decode(
        input=["a"], dimensions=2, user="u", provider={"options": {"acme": {"task": "t"}}}
    )
    assert encode_request(request, model="up", options_key="acme") == {
        "model": "up",
        "input": ["a"],
        "dimensions": 2,
        "task": "t",
    }


@given(st.lists(st.integers(0, 10_000), max_size=5))
def test_vectors_come_in_the_inputs_order_however_the_bytes_are_split(cuts: list[int]) -> None:
    """One finish with one end, and the prompt's count."""
    body = document([1.0, 2.0], "AACAPw==")
    events, failure = play(2, *split(body, cuts))
    assert failure is None
    assert events == [
        ResponseStart(None, "m"),
        VectorDelta(0, [1.0, 2.0]),
        VectorDelta(1, "AACAPw=="),
        Finish((ChoiceEnd(0, "stop", "stop"),), Usage(4, 0)),
    ]


def test_vectors_are_put_in_order_by_their_index() -> None:
    """Where a server sends them otherwise."""
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    events, _ = play(2, document(data=data))
    assert [e.vector for e in events if isinstance(e, VectorDelta)] == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "body",
    [
        document([1.0]),
        document([1.0], [2.0], [3.0]),
        document([1.0], []),
        document([1.0], ""),
        document([1.0], "no base64!"),
        document([1.0], "AAA="),
        document([1.0], base64.b64encode(struct.pack("<f", float("nan"))).decode()),
        document([1.0], ["x"]),
        document(data=[{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [2.0]}]),
        document(data=None),
        b'"text"',
        b"[]",
    ],
)
def test_an_answer_that_does_not_fit_the_inputs_is_none(body: bytes) -> None:
    """Two were asked for."""
    events, failure = play(2, body)
    assert isinstance(failure, ProtocolError)
    assert not any(isinstance(event, Finish | VectorDelta) for event in events)


def test_a_cut_answer_never_looks_complete() -> None:
    """At any byte."""
    body = document([1.0, 2.0], [3.0, 4.0])
    for end in range(len(body)):
        _, failure = play(2, body[:end])
        assert isinstance(failure, StreamTruncated)


def test_an_error_in_an_accepted_answer_is_one() -> None:
    """With the upstream's words."""
    _, failure = play(1, b'{"error": {"message": "overheated", "code": 503}}')
    assert failure is not None
    assert failure.message == "overheated"


def test_unknown_usage_stays_unknown() -> None:
    """A count that nobody gave is no zero."""
    events, _ = play(1, document([1.0], usage=None))
    assert events[-1] == Finish((ChoiceEnd(0, "stop", "stop"),), None)


@pytest.mark.parametrize("wanted", ["float", "base64", None])
@pytest.mark.parametrize("sent", [[1.5, -2.0], base64_text([1.5, -2.0])])
def test_the_client_gets_the_encoding_that_it_asked_for(wanted: str | None, sent: Any) -> None:
    """Whichever the upstream sent."""
    collector = Collector()
    collector.add([VectorDelta(0, sent), Finish((ChoiceEnd(0, "stop", "stop"),), Usage(4, 0))])
    request = decode(encoding_format=wanted)
    answer = json.loads(
        EMBEDDINGS.whole(HEAD, request, collector.answer(), Usage(4, 0), Cost(4_000))
    )
    [item] = answer["data"]
    packed = base64.b64encode(struct.pack("<2f", 1.5, -2.0)).decode()
    assert item["embedding"] == (packed if wanted == "base64" else [1.5, -2.0])
    assert (answer["object"], answer["model"], answer["usage"]["cost"]) == (
        "list",
        "acme/embed",
        0.000004,
    )


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_single_precision_survives_both_ways(vector: list[float]) -> None:
    """Numbers to base64 and back."""
    assert floats(base64_text(vector)) == vector
