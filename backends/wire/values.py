"""Single values as upstreams send them: ids, counts and arguments of more than one type."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from backends.types import HalfUsage, Usage

_DIGITS: Final = re.compile(r"-?[0-9]{1,18}")
_NOT_READ: Final = (msgspec.DecodeError, UnicodeDecodeError)
_decode: Final = msgspec.json.Decoder().decode


def word(value: Any) -> str | None:
    """Read an id: a string, or the number that some servers send; empty means absent."""
    return str(value) if isinstance(value, str | int) and value != "" else None


def count(value: Any) -> int | None:
    """Read a token count. A negative one is kept: the bill has to see it to distrust it."""
    if value.__class__ is float and value.is_integer():
        return int(value)
    if value.__class__ is str and _DIGITS.fullmatch(value):
        return int(value)
    return value if value.__class__ is int else None  # a bool is none


def report_of(
    prompt: int | None,
    completion: int | None,
    cached: int | None = None,
    cache_write: int | None = None,
    reasoning: int | None = None,
) -> Usage | HalfUsage | None:
    """Return a report of tokens and their parts, or what there is of it; None if it lacks both."""
    if prompt is None and completion is None:
        return None
    if prompt is None or completion is None:
        return HalfUsage(prompt, completion, cached, cache_write, reasoning)
    return Usage(prompt, completion, cached, cache_write, reasoning)


def json_text(value: Any) -> str:
    """Read arguments: text, or the object itself that some servers send."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def is_json(payload: bytes) -> bool:
    """Whether a payload is one JSON document."""
    try:
        _decode(payload)
    except _NOT_READ:
        return False
    return True
