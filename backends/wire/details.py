"""``reasoning_details``: the parts of reasoning that a vendor wants back unchanged.

The shape is OpenRouter's: ``reasoning.text`` (``text``, ``signature``), ``reasoning.summary``
(``summary``), ``reasoning.encrypted`` (``data``), each with ``format``, ``index`` and maybe
``id``. In a stream an entry comes in pieces, which share type and index; texts add up, and
every other field counts once. Clients hand back entries or pieces, so both are understood.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

ANTHROPIC: Final = "anthropic-claude-v1"
OPENAI: Final = "openai-responses-v1"
XAI: Final = "xai-responses-v1"
GOOGLE: Final = "google-gemini-v1"

WORDS: Final = {"reasoning.summary": "summary", "reasoning.text": "text"}
"""Where the words stand, by the type of an entry; others have none."""

_TEXTS: Final = ("text", "summary", "data")


def merge_details(whole: list[Any], pieces: Iterable[Any]) -> None:
    """Add pieces to what came before them, in place; entries are copied before they change."""
    for piece in pieces:
        last: Any = whole[-1] if whole else None
        if not _continues(last, piece):
            whole.append(dict(piece) if isinstance(piece, dict) else piece)
            continue
        for name, value in piece.items():
            if name in _TEXTS and isinstance(value, str) and isinstance(last.get(name), str):
                last[name] += value
            elif value is not None:
                last[name] = value


def text_of(details: Any) -> str:
    """Return the words in entries or pieces, for where they stand nowhere else."""
    entries = details if isinstance(details, list) else ()
    known = (entry for entry in entries if isinstance(entry, dict))
    said = (entry.get("text") or entry.get("summary") for entry in known)
    return "".join(words for words in said if isinstance(words, str))


def _continues(last: Any, piece: Any) -> bool:
    """Whether a piece goes on with the entry before it."""
    return (
        isinstance(last, dict)
        and isinstance(piece, dict)
        and piece.get("index") is not None
        and last.get("type") == piece.get("type")
        and last.get("index") == piece.get("index")
        and last.get("id") in (None, piece.get("id"))
    )
