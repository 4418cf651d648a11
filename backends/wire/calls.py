"""Tool calls while their pieces come: each gets an id, a name and arguments, whoever made it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Sequence
from typing import TypeAlias

import msgspec

from backends.types import StreamEvent, ToolCallDelta

Place: TypeAlias = tuple[int, int]
"""The choice, and the call's position in it."""


class _Call:
    __slots__ = ("custom", "early", "ended", "id", "name", "opened", "said")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.opened = False
        self.ended = False
        self.custom = False
        self.early: list[str] = []
        self.said = ""
        """Arguments that came before the name; afterwards, the last of those that were sent."""


class ToolCalls:
    """Turns pieces into lawful deltas: id and name first and once, arguments always."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        """``new_id`` names calls that an upstream left nameless."""
        self._new_id = new_id
        self._calls: dict[Place, _Call] = {}
        self._ids: set[str] = set()

    def __contains__(self, place: Place) -> bool:
        """Whether a call was begun there."""
        return place in self._calls

    def id_at(self, place: Place) -> str:
        """Return the id under which a call goes out; empty before its name is known."""
        return self._calls[place].id

    def custom(self, place: Place) -> None:
        """Say that the call there, which begins, is of a custom tool."""
        call = self._calls.setdefault(place, _Call())
        call.custom = call.custom or not call.opened

    def add(
        self,
        events: list[StreamEvent],
        place: Place,
        names: tuple[str | None, str | None],
        arguments: str,
    ) -> None:
        """Add a piece; of ``names``, id and function, those count that come first.

        A first piece of ``null`` is how some models write that there are no arguments.
        """
        call = self._calls.get(place)
        if call is None:
            call = self._calls[place] = _Call()
        if arguments == "null" and not (call.said or call.custom or "".join(call.early)):
            arguments = ""
        if not call.opened:
            call.id, call.name = call.id or names[0] or "", call.name or names[1] or ""
            call.early.append(arguments)
            if call.name:
                self._open(events, place, call)
        elif arguments:
            call.said = arguments if arguments.strip() else call.said
            events.append(ToolCallDelta(*place, None, None, arguments, call.custom))

    def end(self, events: list[StreamEvent], place: Place, *, cut: bool = False) -> None:
        """A call has ended: without arguments it gets an empty object, without name one.

        Of a custom one it is said, unless it was ``cut``: its input does not show it.
        """
        call = self._calls[place]
        if call.ended:
            return
        call.ended = True
        if not call.opened:
            call.name = "tool"
            self._open(events, place, call)
        if call.custom:
            if not cut:
                events.append(ToolCallDelta(*place, None, None, "", custom=True))
        elif not call.said.strip():
            events.append(ToolCallDelta(*place, None, None, "{}"))

    def any_of(self, index: int) -> bool:
        """Whether a choice has called."""
        return any(place[0] == index for place in self._calls)

    def end_all(self, events: list[StreamEvent], cut: Container[int] = ()) -> None:
        """The answer is over, and so are its calls; in choices that were ``cut``, the last was."""
        last = dict(self._calls.keys())
        for place in self._calls:
            index, position = place
            self.end(events, place, cut=index in cut and last[index] == position)

    def _open(self, events: list[StreamEvent], place: Place, call: _Call) -> None:
        if not call.id or call.id in self._ids:
            call.id = self._new_id()
        self._ids.add(call.id)
        call.opened = True
        call.said, call.early = "".join(call.early), []
        events.append(ToolCallDelta(*place, call.id, call.name, call.said, call.custom))


def call_id() -> str:
    """Return a name for a tool call that has none; unlike any of an earlier turn."""
    return f"call_{secrets.token_hex(12)}"


def is_whole(pieces: Sequence[str]) -> bool:
    """Whether a call's arguments are complete: one JSON object, after which nothing can come."""
    if not pieces or not pieces[-1].rstrip().endswith("}"):
        return False
    try:
        msgspec.json.decode("".join(pieces))
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
