"""Server-sent events are cut out of the bytes, wherever the reads fall."""

from __future__ import annotations

import codecs
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.wire import sse
from backends.wire.sse import EventTooLong, SSEDecoder


def read(*reads: bytes, end: bool = False) -> list[bytes]:
    """Return the events of a stream that arrives in these reads."""
    decoder = SSEDecoder()
    events = [event for chunk in reads for event in decoder.feed(chunk)]
    return [*events, *decoder.end()] if end else events


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a body at some offsets."""
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[a:b] for a, b in itertools.pairwise(places)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8])
def test_every_line_end_and_a_byte_order_mark_are_read(line_end: bytes, bom: bytes) -> None:
    """LF, CRLF and CR, whole or byte by byte."""
    body = bom + b"data: a\n\ndata: b\n\n".replace(b"\n", line_end)
    assert read(body) == [b"a", b"b"]
    assert read(*(bytes([byte]) for byte in body)) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data\n\n", [b""]),
        (b"data:\n\n", [b""]),
        (b"data\ndata\n\n", [b"\n"]),
        (b": comment\n\n: another\ndata: a\n\n", [b"a"]),
        (b"event: error\nid: 7\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"event: ping\n\n", []),
        (b"database: no\ndata : no\nDATA: no\n\n", []),
        (b"\n\n\n", []),
        (b"data: unfinished", []),
        (b"data: unfinished\n", []),
        (b'{"error": "no SSE at all"}\n\n', []),
        (b"data: a\n\n" + codecs.BOM_UTF8 + b"data: b\n\n", [b"a"]),
        (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
    ],
)
def test_lines_are_read_as_the_specification_says(body: bytes, events: list[bytes]) -> None:
    """WHATWG HTML 9.2.6, by example."""
    assert read(body) == events


_lines = st.sampled_from(
    [
        b"data: x",
        b"data:",
        b"data",
        b": c",
        b"event: e",
        b"id: 1",
        b"",
        b"junk",
        "data: ü🌍".encode(),
    ]
)
_bodies = st.lists(st.tuples(_lines, st.sampled_from([b"\n", b"\r\n", b"\r"]))).map(
    lambda pairs: b"".join(line + end for line, end in pairs)
)


@given(st.sampled_from([b"", codecs.BOM_UTF8]), _bodies, st.lists(st.integers(0, 200)))
def test_where_the_reads_are_cut_changes_nothing(bom: bytes, body: bytes, cuts: list[int]) -> None:
    """Inside a line, a character, a CRLF pair or a byte order mark; with empty reads between."""
    body = bom + body
    whole = read(body)
    assert read(*split(body, cuts)) == whole
    assert read(*(piece for part in split(body, cuts) for piece in (part, b""))) == whole
    assert read(*(bytes([byte]) for byte in body), end=True) == read(body, end=True)


_FORMS = [
    b'data: {"a": 1}\n\n',
    b"data: {}\n\n",
    b'data:{"a": 2}\n\n',
    b'data: {"a": 3}\r\n\r\n',
    b'event: text\ndata: {"a": 4}\n\n',
    b'event: text\r\ndata: {"a": 5}\r\n\r\n',
    b'event: text\ndata:{"a": 6}\n\n',
    b"data: [DONE]\n\n",
    # Not quite like the others:
    b'data: {"a":\rdata: 7}\n\n',
    b'data: {"a":\ndata: 8}\n\n',
    b'data: {"a": 9}\r\n\n',
    b'data:  {"a": 10}\n\n',
    b'data: {"a": 11}\ndata: {}\n\n',
    b'data: {"a": 12} \n\n',
    b'event: te\rdata: {}\ndata: {"a": 13}\n\n',
    b'data: {"a": 14}\r',
    b"\n",
    b": comment\n\n",
    b'id: 1\ndata: {"a": 15}\n\n',
    b'data: {"a": 16}\n\n\n',
    b"data: \n\n",
    b"event: text\ndata: words\n\n",
    b'event: error\ndata: {"a": 17}\n\n',
    b"event: error\ndata: words\n\n",
    b"event:error\r\ndata: words\r\n\r\n",
    b"event: error\n",
    b"event: error\n\n",
    b"data: words\n\n",
]
_form = st.sampled_from(_FORMS)
_alike = st.tuples(_form, st.integers(1, 3)).map(lambda run: run[0] * run[1])
_mixed = st.lists(_form, min_size=1, max_size=3).map(b"".join)
_runs = st.lists(st.one_of(_alike, _mixed))


def told(*reads: bytes) -> list[tuple[bytes, bool]]:
    """Return the events, and of those that are no object whether they are named as an error."""
    decoder = SSEDecoder()
    return [
        (event, not event.startswith(b"{") and decoder.is_error)
        for chunk in reads
        for event in decoder.feed(chunk)
    ]


@given(_runs)
def test_events_alone_in_their_reads_or_alike_in_one_are_read_as_byte_by_byte(
    reads: list[bytes],
) -> None:
    """Servers write an event a read, or several of one form; such reads take a shorter way."""
    body = b"".join(reads)
    assert told(*reads) == told(*(bytes([byte]) for byte in body)) == told(body)


def test_a_clean_end_delivers_an_event_without_its_blank_line() -> None:
    """Some servers leave out the last line's end; what a comment left is nothing."""
    assert read(b"data: a\n\ndata: b", end=True) == [b"a", b"b"]
    assert read(b"data: a\ndata: b\n", end=True) == [b"a\nb"]
    assert read(b"data: a\n\n: bye", end=True) == [b"a"]
    assert read(end=True) == []


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
@pytest.mark.parametrize(
    ("line", "ends"),
    [(b"data: " + b"x" * 5000, b"\n\n"), (b"data: x\n", b"\n"), (b"data\n", b"\n")],
)
def test_an_event_over_the_bound_ends_the_stream_however_it_is_cut(
    line: bytes, ends: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long line, many short ones, many empty ones; and what came before it is delivered."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 4000)
    body = b"data: before\n\n" + line * (5000 // len(line) + 1) + ends
    decoder, events = SSEDecoder(), []

    def read_on() -> None:
        for start in range(0, len(body), size):
            events.extend(decoder.feed(body[start : start + size]))

    with pytest.raises(EventTooLong, match="4000 bytes"):
        read_on()
    assert events in ([b"before"], [])
    if size < 5000:
        assert events == [b"before"]


def test_an_event_just_under_the_bound_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And many of them: the bound is for one event."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    event = b"data: " + b"x" * 990 + b"\n\n"
    assert len(read(event * 50)) == 50
