"""What an answer says, in words that all wires share. Readers make it; nothing of ours does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

STOP, LENGTH, CALLS, FILTER, ERROR = "stop", "length", "tool_calls", "content_filter", "error"


@dataclass
class Tokens:
    """Counts as the wire reports them, with the house's meaning; None is unknown."""

    prompt: int | None
    completion: int | None
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None


@dataclass
class Said:
    """One choice.

    Attributes:
        reasoning: its parts; how parts are joined is nobody's promise.
        calls: name and arguments of each, in order; None for arguments that are no JSON.
        signatures: signed and encrypted parts, each in every spelling that serves.
        document: the text is this JSON value, in whatever spelling.
        finish: the normalized word, or None where the wire said nothing of an end.
        raw: the wire's own word, or None where it has none.
        native: the word of the server behind a router, where the router tells.
    """

    text: str = ""
    reasoning: list[str] = field(default_factory=list)
    refusal: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    signatures: list[tuple[str, ...]] = field(default_factory=list)
    images: int = 0
    document: Any = None
    finish: str | None = None
    raw: str | None = None
    native: str | None = None

    def end(self, words: dict[str, str], raw: str | None) -> None:
        """Take the wire's word for the end; an unknown one is a stop."""
        if raw is None:
            return
        self.raw = raw
        self.finish = words.get(raw, STOP)
        if self.finish == STOP and self.calls:
            self.finish = CALLS


@dataclass
class Extract:
    """One answer.

    Attributes:
        choices: by index.
        usage: as last reported, or None.
        error: the vendor's message, where the answer ends in an error.
    """

    choices: dict[int, Said] = field(default_factory=dict)
    usage: Tokens | None = None
    error: str | None = None

    def choice(self, index: int = 0) -> Said:
        """Return a choice, new or known."""
        return self.choices.setdefault(index, Said())

    @property
    def complete(self) -> bool:
        """Every choice ended, and there was one."""
        ends = [said.finish for said in self.choices.values()]
        return self.error is None and bool(ends) and None not in ends


def parsed(arguments: str | None) -> Any:
    """Return arguments as JSON: nothing means no arguments, None what is no JSON."""
    if not (arguments or "").strip():
        return {}
    try:
        return json.loads(arguments or "")
    except ValueError:
        return None


def tokens(prompt: int | None, completion: int | None, **details: int | None) -> Tokens | None:
    """Return counts, or None where neither of the two that matter was reported."""
    if prompt is None and completion is None:
        return None
    return Tokens(prompt, completion, **details)
