"""Values that arrive in pieces, each with the path of its place in one document.

Google streams the arguments of a call this way. Paths are of RFC 9535 (JSONPath), of which only
names and indexes can name one place.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, Final

from backends.errors import ProtocolError

_STEP: Final = re.compile(
    r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]"""
)
_MOST_STEPS: Final = 64


def put(document: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path, in place; a text goes on with the text that stands there.

    Raises:
        ProtocolError: the path names no place, or one behind a gap in a list.
    """
    steps = _steps(path)
    here: Any = document
    for step, following in itertools.pairwise(steps):
        inner = _at(here, step, path)
        if not isinstance(inner, dict | list):
            inner = [] if isinstance(following, int) else {}
            _set(here, step, inner, path)
        here = inner
    before = _at(here, steps[-1], path)
    if isinstance(before, str) and isinstance(value, str):
        value = before + value
    _set(here, steps[-1], value, path)


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    place = 1
    while match := _STEP.match(path, place):
        name, index, quoted, double = match.groups()
        if index is not None:
            steps.append(int(index))
        elif name is not None:
            steps.append(name)
        else:
            steps.append(re.sub(r"\\(.)", r"\1", quoted if quoted is not None else double))
        place = match.end()
    if not path.startswith("$") or place != len(path) or not 0 < len(steps) <= _MOST_STEPS:
        raise _wrong(path)
    return steps


def _at(here: Any, step: str | int, path: str) -> Any:
    """Return what stands at a step, or None."""
    match here, step:
        case dict(), str():
            return here.get(step)
        case list(), int():
            return here[step] if step < len(here) else None
        case _:
            raise _wrong(path)


def _set(here: Any, step: str | int, value: Any, path: str) -> None:
    if isinstance(here, dict) or (isinstance(step, int) and step < len(here)):
        here[step] = value
    elif step == len(here):
        here.append(value)
    else:
        raise _wrong(path)


def _wrong(path: str) -> ProtocolError:
    return ProtocolError(f"the upstream streams an argument at {path[:100]!r}, which is no place")
