"""What a strict reader refused, read for what it stands for.

Wires are read into typed structs, which is quick and refuses a null, or a thing of another type,
wherever the type does not allow it. Servers send both, and mean nothing by it. So a document that
was refused is mended once, along the struct's own types, and read again; what no field of the
struct tells of stays as it is. What says something and can be read as nothing is not left out: an
answer that lost a piece would look whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")

_NOTHING: Final[tuple[Any, ...]] = (None, False, 0, "")
_PROSE: Final = frozenset(
    {"text", "content", "thinking", "reasoning", "reasoning_content", "refusal", "tool_plan"}
)
"""Fields whose text may come as an object that holds it."""

_IN_PIECES: Final = _PROSE - {"text"} | {"summary"}
"""Those whose text may come as a list; of texts by that name the entries may be rivals."""

_WORDS: Final = ("text", "content", "thinking", "summary")
"""Where the words of such an object stand."""

_ASIDE: Final = frozenset({"type", "effort", "enabled", "exclude", "max_tokens"})
"""What else such an object may say without a word: some repeat what the request wished."""

_WISHES: Final = ("auto", "concise", "detailed")
"""A ``summary`` that is a wish for one."""

_SAID: Final = frozenset(
    {"text", "content", "response", "generated_text", "partial_json", "stringValue"}
)
"""Fields in which a token that is a number may come as one: here 0 says something."""

_COUNTS: Final = frozenset(
    {"prompt_eval_count", "eval_count", "generated_tokens", "input_length", "prefill"}
)
"""Fields of a report: one that cannot be read is missing, and the answer is counted here."""

_NAMES: Final = frozenset({"model", "modelVersion"})
"""Fields on which nothing of an answer depends."""

_OWN: Final[Mapping[type, type[inspect.Type]]] = {
    str: inspect.StrType,
    int: inspect.IntType,
    float: inspect.FloatType,
    bool: inspect.BoolType,
}
_BOOLEANS: Final[Mapping[Any, bool]] = {"true": True, "false": False, 1: True, 0: False}
_DIGITS: Final = 18
_ABSENT: Final = object()
"""What is read of nothing."""

_UNREAD: Final = object()
"""What is read of something that has no meaning where it stands."""


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

    Null and empty things count as absent. A number stands for its text and the reverse, an object
    for a list of it; for words an object or a list that holds them.

    Raises:
        msgspec.ValidationError: something in it says something else: it is of another wire.
    """
    for kind in kinds:
        if not isinstance(document, dict):
            raise msgspec.ValidationError("it is no object")
        document = dict(_fields(document, _known(kind)))
    return document


def words(name: str, value: Any) -> str:
    """Return the words that a field holds, as text or in an object; empty if it has none.

    Raises:
        msgspec.ValidationError: it says something else.
    """
    found = _prose(name, value) if _says(value) else _ABSENT
    if found is _UNREAD:
        raise msgspec.ValidationError(f"its {name!r} is of another type")
    return "" if found is _ABSENT else str(found)


def _says(value: Any) -> bool:
    """Whether a value is more than nothing."""
    if isinstance(value, dict | list):
        return any(map(_says, value.values() if isinstance(value, dict) else value))
    return value not in _NOTHING


@cache
def _known(kind: Hashable) -> inspect.StructType:
    known = inspect.type_info(kind)
    assert isinstance(known, inspect.StructType)
    return known


def _fields(document: Mapping[str, Any], kind: inspect.StructType) -> Iterator[tuple[str, Any]]:
    """Yield the fields that can be read, and those that the struct does not know.

    Raises:
        msgspec.ValidationError: one says what cannot be read.
    """
    types = {field.encode_name: field.type for field in kind.fields}
    for name, value in document.items():
        found = _read(name, value, types[name]) if name in types else value
        if found is _UNREAD and name not in _COUNTS | _NAMES and _says(value):
            raise msgspec.ValidationError(f"its {name!r} is of another type")
        if found is not _ABSENT and found is not _UNREAD:
            yield name, found


def _read(name: str, value: Any, kind: inspect.Type) -> Any:
    """Return what the value of a field stands for; ``_ABSENT`` or ``_UNREAD`` if it does not."""
    match kind:
        case inspect.AnyType():
            return value
        case inspect.UnionType():
            return _either(name, value, kind.types)
        case inspect.StructType() if isinstance(value, dict):
            return dict(_fields(value, kind))
        case inspect.ListType() if isinstance(value, list):
            return _list(name, value, kind.item_type)
        case inspect.ListType() if isinstance(value, dict):
            item = kind.item_type
            of_it = isinstance(item, inspect.StructType) and any(
                field.encode_name in value for field in item.fields
            )
            return _list(name, [value], item) if of_it else _UNREAD
        case inspect.StrType():
            return _text(name, value)
        case inspect.IntType():
            return _whole(value)
        case inspect.BoolType() if isinstance(value, str | int):
            return _BOOLEANS.get(value.lower() if isinstance(value, str) else value, _UNREAD)
        case inspect.FloatType() if value.__class__ in (int, float):
            return value
        case inspect.DictType() if isinstance(value, dict):
            return value
        case inspect.BytesType() if isinstance(value, str):
            return value
        case _:
            return _UNREAD


def _either(name: str, value: Any, kinds: Iterable[inspect.Type]) -> Any:
    if value is None:
        return None if any(isinstance(kind, inspect.NoneType) for kind in kinds) else _ABSENT
    own = _OWN.get(value.__class__)
    if own is not None and any(isinstance(kind, own) for kind in kinds):
        return value
    # What has a type of its own is not first read as words.
    found = _UNREAD
    for kind in sorted(kinds, key=lambda kind: isinstance(kind, inspect.StrType)):
        try:
            found = _read(name, value, kind)
        except msgspec.ValidationError:
            continue
        if found is not _UNREAD:
            return found
    return _UNREAD


def _list(name: str, entries: list[Any], item: inspect.Type) -> Any:
    """Return the entries that say something, unless one of them cannot be read."""
    found = [(_read(name, entry, item), entry) for entry in entries]
    if any(one is _UNREAD and _says(entry) for one, entry in found):
        return _UNREAD
    kept = [one for one, _ in found if one is not _UNREAD and one is not _ABSENT]
    return kept if kept or not entries else _ABSENT


def _text(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value) if value or name in _SAID else _ABSENT
    return _prose(name, value) if name in _PROSE and _says(value) else _UNREAD


def _prose(name: str, value: Any) -> Any:
    """Return the words that an object or a list holds, in one way only."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and name in _IN_PIECES:
        pieces = [_prose("text", entry) for entry in value if _says(entry)]
        pieces = [piece for piece in pieces if piece is not _ABSENT]
        return _UNREAD if _UNREAD in pieces else "".join(pieces)
    if not isinstance(value, dict):
        return _UNREAD
    said = {key for key in value if _says(value[key])}
    if value.get("summary") in _WISHES:
        said.remove("summary")
    found = {_prose(key, value[key]) for key in _WORDS if key in said} - {_ABSENT}
    if not found:
        return _ABSENT if said <= _ASIDE else _UNREAD
    return found.pop() if len(found) == 1 else _UNREAD


def _whole(value: Any) -> Any:
    if isinstance(value, str) and value.isdecimal() and len(value) <= _DIGITS:
        return int(value)
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        return _UNREAD
    return int(value) if isinstance(value, int | float) else _UNREAD
