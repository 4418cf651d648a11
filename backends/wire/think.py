"""Reasoning that a model wrote into its text, between ``<think>`` and ``</think>``."""

from __future__ import annotations

from typing import Final, Literal

_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"


class ThinkTags:
    """Tells the reasoning at the start of a text from the text, however the text is cut.

    Only a tag that stands first counts: later ones are words of the answer.
    """

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        """Start before the first character."""
        self._held = ""
        self._state: Literal["start", "thought", "text"] = "start"

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Return what is decided now: whether it is reasoning, and the piece, never empty."""
        if self._state == "text":
            return [(False, text)]
        self._held += text
        pieces: list[tuple[bool, str]] = []
        if self._state == "start":
            first = self._held.lstrip()
            if len(first) < len(_OPEN) and _OPEN.startswith(first):
                return pieces
            if not first.startswith(_OPEN):
                self._state = "text"
                return self._give(False, len(self._held), pieces)
            self._state, self._held = "thought", first[len(_OPEN) :]
        end = self._held.find(_CLOSE)
        if end < 0:
            return self._give(True, len(self._held) - _overlap(self._held), pieces)
        self._give(True, end, pieces)
        self._held = self._held[len(_CLOSE) :]
        self._state = "text"
        return self._give(False, len(self._held), pieces)

    def end(self) -> list[tuple[bool, str]]:
        """Return what was held back because it might have been a tag."""
        return self._give(self._state == "thought", len(self._held), [])

    def _give(
        self, thought: bool, size: int, pieces: list[tuple[bool, str]]
    ) -> list[tuple[bool, str]]:
        if size:
            pieces.append((thought, self._held[:size]))
        self._held = self._held[size:]
        return pieces


def _overlap(text: str) -> int:
    """Return how many characters at the end may be the beginning of the closing tag."""
    return next(
        (n for n in range(min(len(text), len(_CLOSE) - 1), 0, -1) if _CLOSE.startswith(text[-n:])),
        0,
    )
