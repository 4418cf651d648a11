"""What a strict reader refused, read for what it stands for.

Wires are read into typed structs, which is quick and refuses a null, or a thing of another type,
wherever the type does not allow it. Servers send both, and mean nothing by it. So a document that
was refused is mended once, along the struct's own types, and read again; what no field of the
struct tells of stays as it is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")

_NOTHING: Final[tuple[Any, ...]] = (None, False, 0, "", [], {})
_WORDS: Final = ("text", "content", "thinking")
"""Where the words of an object stand that came in place of a text."""

_OWN: Final[Mapping[type, type[inspect.Type]]] = {
    str: inspect.StrType,
    int: inspect.IntType,
    float: inspect.FloatType,
    bool: inspect.BoolType,
}
_DIGITS: Final = 18
_ABSENT: Final = object()


def read(document: Any, kind: type[T]) -> T:
    """Return a document as ``kind``, mended if need be.

    Raises:
        msgspec.ValidationError: nothing helps.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError:
        return msgspec.convert(mend(document, kind), kind)


def mend(document: Any, *kinds: Any) -> Any:
    """Return a document without what the structs ``kinds`` cannot read.

    Null and empty things count as absent; so does, within the document, what means nothing in its
    place. A number stands for its text and the reverse, an object for a list of it or for the
    words in it. Of the document itself only nulls and empty things are left out: one whose own
    fields say something else is of another wire.

    Raises:
        msgspec.ValidationError: it is.
    """
    for kind in kinds:
        if not isinstance(document, dict):
            raise msgspec.ValidationError("it is no object")
        found = dict(_fields(document, _known(kind)))
        if lost := [name for name in document if name not in found and _says(document[name])]:
            raise msgspec.ValidationError(f"its {lost[0]!r} is of another type")
        document = found
    return document


def _says(value: Any) -> bool:
    """Whether a value is more than nothing."""
    return value not in _NOTHING and not (isinstance(value, list) and not any(value))


@cache
def _known(kind: Hashable) -> inspect.StructType:
    known = inspect.type_info(kind)
    assert isinstance(known, inspect.StructType)
    return known


def _fields(document: Mapping[str, Any], kind: inspect.StructType) -> Iterator[tuple[str, Any]]:
    """Yield the fields that can be read, and those that the struct does not know."""
    types = {field.encode_name: field.type for field in kind.fields}
    for name, value in document.items():
        found = _read(value, types[name]) if name in types else value
        if found is not _ABSENT:
            yield name, found


def _read(value: Any, kind: inspect.Type) -> Any:
    """Return what a value stands for; ``_ABSENT`` for nothing."""
    match kind:
        case inspect.AnyType():
            return value
        case inspect.UnionType():
            return _either(value, kind.types)
        case inspect.StructType() if isinstance(value, dict):
            return dict(_fields(value, kind))
        case inspect.ListType() if isinstance(value, list) or (isinstance(value, dict) and value):
            entries = value if isinstance(value, list) else [value]
            found = [_read(entry, kind.item_type) for entry in entries]
            kept = [entry for entry in found if entry is not _ABSENT]
            return kept if kept or not found else _ABSENT
        case inspect.StrType():
            return _text(value)
        case inspect.IntType():
            return _whole(value)
        case inspect.BoolType() if isinstance(value, int):
            return bool(value)
        case inspect.FloatType() if value.__class__ in (int, float):
            return value
        case inspect.DictType() if isinstance(value, dict):
            return value
        case inspect.BytesType() if isinstance(value, str):
            return value
        case _:
            return _ABSENT


def _either(value: Any, kinds: Iterable[inspect.Type]) -> Any:
    if value is None:
        return None if any(isinstance(kind, inspect.NoneType) for kind in kinds) else _ABSENT
    own = _OWN.get(value.__class__)
    if own is not None and any(isinstance(kind, own) for kind in kinds):
        return value
    found = (_read(value, kind) for kind in kinds)
    return next((each for each in found if each is not _ABSENT), _ABSENT)


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return next((value[w] for w in _WORDS if isinstance(value.get(w), str)), _ABSENT)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number and value else _ABSENT


def _whole(value: Any) -> Any:
    if isinstance(value, str) and value.isdecimal() and len(value) <= _DIGITS:
        return int(value)
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        return _ABSENT
    return int(value) if isinstance(value, int | float) else _ABSENT
