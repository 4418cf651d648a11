"""Which call of an answer a piece on OpenAI's chat wire belongs to: not all servers say."""

from __future__ import annotations

from typing import Final, NamedTuple

from backends.wire.calls import is_whole
from backends.wire.openai_chunk import (
    CallPiece,
    ChatDelta,
    Custom,
    Function,
    deep,
    kind_of,
    list_of,
)
from backends.wire.values import json_text, word

_NO_IDS: Final = frozenset({"null", "None"})
"""Ids of servers that write out that there is none (Mistral's, until 2024)."""

_NO_MARKS: Final = _NO_IDS | {"0"}
"""Ids that do not tell calls apart: the last is that of all calls of a TGI server."""


class Placed(NamedTuple):
    """A piece of a call whose position is known."""

    position: int
    id: str
    name: str
    arguments: str
    custom: bool


class CallPlaces:
    """Finds the places of pieces: calls of a choice count in the order in which they begin."""

    def __init__(self) -> None:
        """Start before the first piece."""
        self._places: dict[tuple[int, int | str], tuple[int, str]] = {}
        self._begun: dict[int, int] = {}
        self._told: dict[tuple[int, int], tuple[str, list[str]]] = {}
        """Of each call its name and the pieces of its arguments."""

    def place(self, index: int, call: CallPiece) -> Placed | None:
        """Return a piece of a call of choice ``index`` at its place; None if it says nothing.

        A piece without position belongs to the last call, unless it begins one: it has a name, and
        another id or nothing left to say of the last. A position that is used again with another id
        and a name is another call; where there are no ids, with another name, or when the arguments
        so far are whole.
        """
        function, is_custom = _function(call)
        id, name = word(call.id) or "", function.name or ""  # noqa: A001
        arguments = json_text(function.arguments)
        if not (id or name or arguments):
            return None
        mark = "" if id in _NO_MARKS else id
        key = (index, "last" if call.index is None else call.index)
        place = self._places.get(key)
        known, told = self._told.get((index, place[0]), ("", [])) if place else ("", [])
        if place is None:
            begins = True
        elif not place[1] and (
            (name and known and name != known)
            or (arguments.lstrip().startswith("{") and is_whole(told))
        ):
            begins, name = True, name or known
        elif mark and place[1]:
            begins = bool(name) and (mark != place[1] or (call.index is None and is_whole(told)))
        else:
            begins = bool(name) and call.index is None and not (name == known and _is_half(told))
        if begins:
            number = self._begun.get(index, 0)
            self._begun[index] = number + 1
            place, told = (number, mark), []
            self._told[index, number] = (name, told)
        assert place is not None
        self._places[key] = self._places[index, "last"] = (place[0], place[1] or mark)
        told.append(arguments)
        return Placed(place[0], "" if id in _NO_IDS else id, name, arguments, is_custom)


def calls_of(delta: ChatDelta) -> list[CallPiece]:
    """Return the calls of a delta, which Snowflake's first API has in a list of its own."""
    if delta.tool_calls or not delta.content_list:
        return delta.tool_calls or []
    parts = (part for part in list_of(delta.content_list) if kind_of(part) == "tool_use")
    found = (part.get("tool_use") or part for part in parts)
    return [
        CallPiece(id=deep(use, "tool_use_id"), name=deep(use, "name"), input=deep(use, "input"))
        for use in found
    ]


def number_calls(message: ChatDelta) -> None:
    """Give the calls of a whole message, of which none comes in pieces, positions of their own."""
    message.tool_calls = calls_of(message)
    for position, call in enumerate(message.tool_calls):
        call.index = position


def _is_half(told: list[str]) -> bool:
    """Whether arguments have begun but do not stand as they are."""
    return any(map(str.strip, told)) and not is_whole(told)


def _function(call: CallPiece) -> tuple[Function, bool]:
    """Return what a piece says of its function, and whether it is of a custom tool."""
    function, custom = call.function, call.custom
    if function is None and custom is None:
        function, custom = _flat(call)
    if custom is not None and (custom.name or custom.input):  # some send it empty beside
        return Function(custom.name, custom.input), True
    return function or Function(), False


def _flat(call: CallPiece) -> tuple[Function | None, Custom | None]:
    """Return what a call says that names its function itself."""
    name = word(call.name)
    if call.type in ("custom", "custom_tool_call"):
        return None, Custom(name, call.input)
    return Function(name, call.input if call.arguments is None else call.arguments), None
