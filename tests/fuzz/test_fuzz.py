"""Any bytes: no crash, no hang, bounded memory, one end; a cut answer never looks complete."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.types import Finish, StreamEvent
from tests.fuzz.laws import before_the_end, bodies, check, decoders, play

NAMES = sorted(decoders())
BODIES = [
    pytest.param(wire.name, pieces, id=f"{wire.name}-{name}") for wire, name, pieces in bodies()
]
MEGABYTE = 1024 * 1024
_NEWS = (b"null", b"[]", b"{}", b'""', b"-1", b"1e999", b"true", b"\xff", b"\r", b"\n\n", b"data:")


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """Cut a body into reads."""
    marks = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[a:b] for a, b in itertools.pairwise(marks)]


@pytest.mark.parametrize("name", NAMES)
@given(reads=st.lists(st.binary(max_size=200), max_size=8))
def test_no_bytes_crash_a_decoder(name: str, reads: list[bytes]) -> None:
    """Noise ends in an error of ours."""
    decoder = decoders()[name]()
    events = play(decoder, reads)
    check(decoder, events)
    assert not any(isinstance(event, Finish) for event in events)


@pytest.mark.parametrize(("name", "pieces"), BODIES)
@given(data=st.data())
def test_a_damaged_answer_keeps_the_laws(
    name: str, pieces: list[bytes], data: st.DataObject
) -> None:
    """Bytes flipped, left out, doubled or replaced, in reads of any size."""
    body = bytearray(b"".join(pieces))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        size = data.draw(st.integers(0, 12))
        kind = data.draw(st.sampled_from(("flip", "drop", "double", "put")))
        if kind == "flip":
            body[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "drop":
            del body[at : at + size]
        elif kind == "double":
            body[at:at] = body[at : at + size]
        else:
            body[at : at + size] = data.draw(st.sampled_from(_NEWS))
        if not body:
            break
    decoder = decoders()[name]()
    check(decoder, play(decoder, cut(bytes(body), data.draw(st.lists(st.integers(0), max_size=6)))))


@pytest.mark.parametrize(("name", "pieces"), BODIES)
@given(data=st.data())
def test_the_reads_do_not_matter_and_a_cut_is_seen(
    name: str, pieces: list[bytes], data: st.DataObject
) -> None:
    """However it is split, the same events; cut before its end, never a finish."""
    body = b"".join(pieces)
    whole, other = decoders()[name](), decoders()[name]()
    wanted = shown(play(whole, [body]))
    assert whole.failure is None
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=20))
    assert shown(play(other, cut(body, places))) == wanted
    begun = before_the_end(pieces)
    broken = decoders()[name]()
    events = play(broken, [begun[: data.draw(st.integers(0, len(begun)))]])
    check(broken, events)
    assert broken.failure is not None


def shown(events: list[StreamEvent]) -> list[str]:
    """Return events without the names that are made up anew each time."""
    return [repr(event).replace(made, "made") for event in events for made in [_made(event)]]


def _made(event: StreamEvent) -> str:
    name = getattr(event, "id", None)
    return name if isinstance(name, str) and name.startswith("call_") and len(name) > 20 else "\0"


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_bounded_whatever_is_sent(name: str) -> None:
    """A line that never ends is given up at about a megabyte, not kept."""
    decoder = decoders()[name]()
    tracemalloc.start()
    try:
        for start in (b"data: ", b""):
            decoder.feed(start + b'x"' * 8)
        for _ in range(40):
            if decoder.failure is not None:
                break
            decoder.feed(b"x" * (MEGABYTE // 8))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.failure is not None
    assert peak < 6 * MEGABYTE
