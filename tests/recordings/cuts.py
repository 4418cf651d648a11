"""Where a body can be cut."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator

from tests.recordings.cases import Case


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    """Return the body in reads that end at these offsets."""
    places = sorted({0, len(body), *(cut for cut in cuts if 0 < cut < len(body))})
    return [body[start:end] for start, end in itertools.pairwise(places)]


def inside_characters(body: bytes) -> list[int]:
    """Return every offset inside a character of more than one byte."""
    return [place for place, byte in enumerate(body) if byte & 0xC0 == 0x80]


def frames(case: Case) -> list[int]:
    """Return the offsets at which an event is over."""
    body = case.body
    match case.framing:
        case "sse":
            return [found.end() for found in re.finditer(rb"\r?\n\r?\n", body)]
        case "ndjson":
            return [found.end() for found in re.finditer(rb"\n", body)]
        case "aws-eventstream":
            return list(_aws(body))
        case "json-array":
            return list(_array(body.decode()))
        case _:
            return []


def _aws(body: bytes) -> Iterator[int]:
    place = 0
    while place < len(body):
        place += int.from_bytes(body[place : place + 4], "big")
        yield place


def _array(text: str) -> Iterator[int]:
    read = json.JSONDecoder().raw_decode
    place = text.index("[") + 1
    while (begin := text.find("{", place)) >= 0:
        _, place = read(text, begin)
        yield len(text[:place].encode())


def sampled(case: Case, count: int, below: int | None = None) -> list[int]:
    """Return offsets, the same in every run."""
    most = len(case.body) if below is None else below
    if most <= count:
        return list(range(most))
    return sorted(random.Random(case.name).sample(range(most), count))


def ways(case: Case) -> Iterator[list[int]]:
    """Yield sets of cuts: 64 offsets alone; every character and frame, around and at its end."""
    for offset in sampled(case, 64):
        yield [offset]
    characters, ends = inside_characters(case.body), frames(case)
    around = [end + shift for end in ends for shift in (-2, -1, 0, 1, 2, 4, 8, 12)]
    yield characters
    yield ends
    yield around
    spread = sorted({*characters, *around})
    for start in range(8):
        yield spread[start::8]


def every_offset(case: Case, apart: int = 512) -> Iterator[list[int]]:
    """Yield sets of cuts in which each offset stands once, with this many bytes between two."""
    for start in range(min(apart, len(case.body))):
        yield list(range(start, len(case.body), apart))
    yield list(range(len(case.body)))
