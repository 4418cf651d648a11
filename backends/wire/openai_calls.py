"""Which call of an answer a piece on OpenAI's chat wire belongs to: not all servers say."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

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

_MARKS: Final = re.compile(r'\\.|[\\"{}[\]]', re.DOTALL)
"""What tells the structure of JSON; a character that is escaped tells none."""


class Placed(NamedTuple):
    """A piece of a call whose position is known."""

    position: int
    id: str
    name: str
    arguments: str
    custom: bool


class _Arguments:
    """How far the arguments of a call have come: read once, however many the pieces."""

    __slots__ = ("_depth", "_escaped", "_opened", "_quoted", "begun")

    def __init__(self) -> None:
        self.begun = False
        self._depth = 0
        self._opened = False
        self._quoted = False
        self._escaped = False

    @property
    def whole(self) -> bool:
        """Whether they stand as they are: what was opened is closed."""
        return self._opened and self._depth <= 0 and not self._quoted

    @property
    def half(self) -> bool:
        """Whether they have begun but do not."""
        return self.begun and not self.whole

    def add(self, piece: str) -> None:
        self.begun = self.begun or bool(piece.strip())
        for mark in _MARKS.findall(f"\\{piece}" if self._escaped else piece):
            self._escaped = mark == "\\"
            if mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted and mark in "{[":
                self._opened = True
                self._depth += 1
            elif not self._quoted and mark in "}]":
                self._depth -= 1


class _Call:
    """A call that was begun."""

    __slots__ = ("arguments", "mark", "name", "position")

    def __init__(self, position: int, mark: str, name: str) -> None:
        self.position = position
        self.mark = mark
        self.name = name
        self.arguments = _Arguments()


class CallPlaces:
    """Finds the places of pieces: calls of a choice count in the order in which they begin."""

    def __init__(self) -> None:
        """Start before the first piece."""
        self._calls: dict[tuple[int, int | str], _Call] = {}
        """By choice and position, or id, or the empty text for the last."""

        self._begun: dict[int, int] = {}

    def place(self, index: int, call: CallPiece, *, beside: bool = False) -> Placed | None:
        """Return a piece of a call of choice ``index`` at its place; None if it says nothing.

        A piece belongs to the call at its position; without one to that of its id, or to the last,
        unless it begins another: see ``_begins``.

        Args:
            index: the choice.
            call: the piece.
            beside: it stands beside another one in the same chunk.
        """
        function, is_custom = _function(call)
        id, name = word(call.id) or "", function.name or ""  # noqa: A001
        arguments = json_text(function.arguments)
        if not (id or name or arguments):
            return None
        mark = "" if id in _NO_MARKS else id
        known = self._calls.get((index, mark or "" if call.index is None else call.index))
        if known is None and call.index is None:
            known = self._calls.get((index, ""))
        if known is None or _begins(known, call.index, mark, name, arguments, beside=beside):
            number = self._begun.get(index, 0)
            self._begun[index] = number + 1
            name = name or (known.name if known is not None else "")
            known = _Call(number, mark, name)
        known.mark = known.mark or mark
        keys = ("", known.mark, "" if call.index is None else call.index)
        self._calls.update({(index, key): known for key in keys})
        known.arguments.add(arguments)
        return Placed(known.position, "" if id in _NO_IDS else id, name, arguments, is_custom)


def _begins(
    known: _Call, position: int | None, mark: str, name: str, arguments: str, *, beside: bool
) -> bool:
    """Say whether a piece that would belong to a call begins another one.

    Servers repeat id and name with every piece, or send neither; give each piece an id of its own,
    or all calls the same id or position. Arguments that are whole tell.
    """
    so_far, same = known.arguments, name == known.name
    if beside and name and position is None and (not mark or mark != known.mark):
        return True
    if mark and known.mark and mark != known.mark:
        return bool(name) and not (position is not None and same and so_far.half)
    if mark and known.mark:
        return position is None and bool(name and arguments.strip()) and so_far.whole
    if not known.mark and so_far.whole and arguments.lstrip().startswith("{"):
        return True
    if position is not None:
        return not known.mark and bool(name and known.name) and not same
    return bool(name) and (not same or so_far.whole)


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
