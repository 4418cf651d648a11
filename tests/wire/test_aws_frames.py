"""AWS's binary frames are read wherever the network cut them, and a damaged one ends the answer."""

from __future__ import annotations

import struct
from binascii import crc32
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import (
    MAX_CODE_CHARS,
    MAX_MESSAGE_CHARS,
    BackendError,
    EndpointRejected,
    ProtocolError,
    RateLimited,
    RequestRejected,
    StreamTruncated,
    UpstreamFailed,
)
from backends.wire import aws_frames
from backends.wire.aws_frames import Frames, Unwrap, Unwrapping, invoked, named, parts
from tests.aws import chunk, event, exception, frame, part
from tests.wire.test_sse import split


def read(*reads: bytes, unwrap: Unwrapping = named, end: bool = True) -> list[bytes]:
    """Return what the frames hold of a body that arrives in these reads."""
    frames = Frames(unwrap)
    found = [payload for data in reads for payload in frames.feed(data)]
    return [*found, *frames.end()] if end else found


def test_an_event_of_converse_becomes_an_object_that_names_it() -> None:
    """The type stands in a header of the frame; a payload of nothing is an empty object."""
    body = event("messageStart", {"role": "assistant"}) + event("metadata", b"")
    assert read(body) == [b'{"messageStart":{"role": "assistant"}}', b'{"metadata":{}}']


def test_a_chunk_of_invoke_holds_the_models_own_event() -> None:
    """In base64, with padding beside it; other events say nothing of the answer."""
    body = chunk({"type": "ping"}) + event("other", {"a": 1}) + chunk(b"[1]")
    assert read(body, unwrap=invoked) == [b'{"type": "ping"}', b"[1]"]


@pytest.mark.parametrize("payload", [b"no JSON", b'{"bytes": 7}', b'{"bytes": "no base64!"}'])
def test_a_chunk_that_cannot_be_read_is_no_json(payload: bytes) -> None:
    """So a decoder drops and counts it."""
    [found] = read(event("chunk", payload), unwrap=invoked)
    assert found.startswith(b"\0")


def test_parts_of_sagemaker_are_bytes() -> None:
    """They mean nothing each for itself."""
    body = part(b"data: a\n") + part(b"") + part(b"\n")
    assert read(body, unwrap=parts) == [b"data: a\n", b"\n"]


@given(st.lists(st.binary(max_size=60), max_size=6), st.lists(st.integers(0, 5000), max_size=12))
def test_where_the_reads_are_cut_changes_nothing(payloads: list[bytes], cuts: list[int]) -> None:
    """In a length, a checksum, a header or a payload; with empty reads between."""
    body = b"".join(part(payload) for payload in payloads)
    whole = [payload for payload in payloads if payload]
    assert read(*split(body, cuts), unwrap=parts) == whole
    reads = [piece for cut in split(body, cuts) for piece in (cut, b"")]
    assert read(*reads, unwrap=parts) == whole
    assert read(*(bytes([byte]) for byte in body), unwrap=parts) == whole


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_byte_never_passes(place: int, change: int) -> None:
    """Checksums see it: the answer breaks, with what came before the frame delivered."""
    good, bad = part(b"before"), bytearray(part(b"after that"))
    bad[place % len(bad)] ^= change
    found: list[bytes] = []

    def read_on() -> None:
        frames = Frames(parts)
        found.extend(frames.feed(good + bytes(bad)))
        tuple(frames.end())

    with pytest.raises((ProtocolError, StreamTruncated)):
        read_on()
    assert found == [b"before"]


KINDS = st.sampled_from(["contentBlockDelta", "metadata", "PayloadPart", "chunk"])
PAYLOADS = st.sampled_from([b"{}", b"[1]", b"", b'{"a": 1}', b'{"b": 2}'])


def both(body: bytes, cuts: list[int]) -> tuple[list[Any], list[Any]]:
    """Return what we and botocore make of a body: types and payloads, and None for a fault."""

    def told(kind: str) -> Unwrap | None:
        if kind == "metadata":
            return lambda _: b""
        return None if kind == "PayloadPart" else kind.encode().__add__

    ours: list[Any] = []
    frames = Frames(told)
    try:
        for data in split(body, cuts):
            ours.extend(frames.feed(data))  # as far as it comes
        tuple(frames.end())
    except BackendError:
        ours.append(None)
    theirs: list[Any] = []
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    try:
        for message in buffer:
            unwrap = told(message.headers[":event-type"])
            theirs.append(message.payload if unwrap is None else unwrap(message.payload))
            body = body[message.prelude.total_length :]
    except (ParserError, KeyError, ValueError, struct.error):
        body = b""
        theirs.append(None)
    return ours, [payload for payload in [*theirs, *([None] if body else [])] if payload != b""]


@given(
    st.lists(st.tuples(KINDS, PAYLOADS), max_size=12),
    st.lists(st.integers(0, 2000), max_size=12),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), max_size=1),
)
def test_what_is_remembered_of_frames_changes_nothing(
    events: list[tuple[str, bytes]], cuts: list[int], damage: list[tuple[int, int]]
) -> None:
    """However alike they begin, and wherever one is damaged: botocore's own buffer agrees."""
    body = bytearray(b"".join(event(kind, payload) for kind, payload in events))
    for place, change in damage:
        if body:
            body[place % len(body)] ^= change
    frame_by_frame = [len(event(*one)) for one in events]
    for reads in (cuts, [sum(frame_by_frame[:n]) for n in range(len(events))]):
        ours, theirs = both(bytes(body), reads)
        assert ours == theirs


def test_the_frames_of_a_paced_stream_are_read_each_by_itself() -> None:
    """One in a read, of lengths that come again, with other payloads; a damaged one is seen."""
    frames = Frames(parts)
    pieces = [b"one", b"two", b"three", b"six", b"seven"]
    assert [list(frames.feed(part(piece))) for piece in pieces] == [[piece] for piece in pieces]
    bad = part(b"ten")[:-1] + b"?"
    with pytest.raises(ProtocolError, match="checksum"):
        tuple(frames.feed(bad))


@pytest.mark.parametrize("size", [0, 1, 11, 12, 15])
@pytest.mark.parametrize("headers", [0, 1, 2**32 - 1])
def test_a_frame_that_says_it_is_shorter_than_any_is_damaged(size: int, headers: int) -> None:
    """With or without a frame before it; a good checksum of its lengths changes nothing."""
    lengths = struct.pack(">II", size, headers)
    for bad in (lengths + bytes(20), lengths + struct.pack(">I", crc32(lengths)) + bytes(20)):
        for body in (bad, part(b"a") + bad):
            with pytest.raises((ProtocolError, StreamTruncated)):
                read(body, unwrap=parts)


def test_headers_of_any_length_are_read_and_only_short_ones_are_remembered() -> None:
    """What an upstream can make a worker remember is bounded in bytes, too."""
    headers = {":event-type": "PayloadPart", ":message-type": "event", "long": "x" * 60_000}
    before = aws_frames._beginning.cache_info().currsize
    assert read(frame(headers, b"a"), frame(headers, b"b"), unwrap=parts) == [b"a", b"b"]
    assert aws_frames._beginning.cache_info().currsize == before


@given(st.integers(1, 40))
def test_a_body_that_ends_within_a_frame_is_cut(missing: int) -> None:
    """However little is missing."""
    body = part(b"first") + part(b"a second one")
    with pytest.raises(StreamTruncated):
        read(body[:-missing], unwrap=parts)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_frame_over_the_bound_ends_the_answer(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is whole, unless it came in one read."""
    monkeypatch.setattr(aws_frames, "MAX_FRAME_BYTES", 1000)
    body = part(b"x" * 2000)
    with pytest.raises(ProtocolError, match="1000 bytes"):
        read(*(body[start : start + size] for start in range(0, len(body), size)), unwrap=parts)


def test_many_frames_in_one_read_are_no_long_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is for one frame."""
    monkeypatch.setattr(aws_frames, "MAX_FRAME_BYTES", 200)
    assert len(read(part(b"x" * 50) * 40, unwrap=parts)) == 40


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", RateLimited),
        ("ThrottlingException", RateLimited),
        ("modelNotReadyException", RateLimited),
        ("serviceQuotaExceededException", RateLimited),
        ("validationException", RequestRejected),
        ("ValidationError", RequestRejected),
        ("accessDeniedException", EndpointRejected),
        ("resourceNotFoundException", EndpointRejected),
        ("modelTimeoutException", UpstreamFailed),
        ("modelStreamErrorException", UpstreamFailed),
        ("internalServerException", UpstreamFailed),
        ("serviceUnavailableException", UpstreamFailed),
        ("InternalStreamFailure", UpstreamFailed),
        ("ModelStreamError", UpstreamFailed),
    ],
)
def test_an_exception_is_the_error_that_it_stands_for(name: str, kind: type[BackendError]) -> None:
    """With its own words and name, after what came before it."""
    payloads = Frames(parts).feed(part(b"half") + exception(name, "in its own words"))
    assert next(payloads) == b"half"
    with pytest.raises(BackendError) as caught:
        next(payloads)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.upstream_code) == ("in its own words", name)
    assert caught.value.upstream_status is not None


def test_a_model_behind_the_front_has_a_status_of_its_own() -> None:
    """As without a stream: what it refused is the request's fault."""
    headers = {":message-type": "exception", ":exception-type": "modelStreamErrorException"}
    payload = b'{"message": "no", "originalStatusCode": 400, "originalMessage": "no"}'
    with pytest.raises(RequestRejected):
        next(iter(Frames(parts).feed(frame(headers, payload))))


def test_an_error_without_a_shape_gives_its_words() -> None:
    """AWS's other kind of broken stream has code and words in headers."""
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "sorry"}
    with pytest.raises(UpstreamFailed, match="sorry"):
        read(frame(headers, b""))
    for name in headers.keys() - {":message-type"}:
        with pytest.raises(UpstreamFailed) as caught:
            read(frame({**headers, name: "." * 30_000}, b""))
        assert len(caught.value.message) <= MAX_MESSAGE_CHARS
        assert len(caught.value.upstream_code or "") <= MAX_CODE_CHARS
