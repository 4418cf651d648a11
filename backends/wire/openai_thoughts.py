"""Signed reasoning of Anthropic's models, as fronts that speak OpenAI's chat pass it on.

Each has a way of its own: LiteLLM's ``thinking_blocks``, Portkey's ``content_blocks`` (in streams
without types: source of its gateway, read 2026-12), Heroku's ``reasoning`` that is an object,
Databricks' summaries in ``content``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backends.wire.details import ANTHROPIC
from backends.wire.openai_chunk import ChatDelta, kind_of, list_of


class SignedThoughts:
    """Turns it into the details that Anthropic's own wire gives."""

    def __init__(self) -> None:
        """Start before the first piece."""
        self._ended: dict[int, int] = {}
        """How many parts of a choice's reasoning have ended: few number them, but what is signed
        or encrypted ends one."""

    def details(self, index: int, delta: ChatDelta) -> list[dict[str, Any]]:
        """Return what a delta of choice ``index`` says; pieces of one part share its number."""
        details = []
        for block in _blocks(delta):
            if detail := _detail(block):
                place = self._ended.get(index, 0)
                details.append({**detail, "format": ANTHROPIC, "index": place})
                if "signature" in detail or "data" in detail:
                    self._ended[index] = place + 1
        return details


def summaries(content: list[Any]) -> list[dict[str, Any]]:
    """Return the pieces of reasoning among the parts of a content, as Databricks has them."""
    parts = (part for part in content if kind_of(part) == "reasoning")
    pieces = (piece for part in parts for piece in list_of(part.get("summary")))
    return [piece for piece in pieces if isinstance(piece, dict)]


def _blocks(delta: ChatDelta) -> Iterator[Mapping[str, Any]]:
    """Yield what may be blocks of Anthropic's, or pieces of such; one vendor's only."""
    if isinstance(delta.reasoning, dict):
        yield delta.reasoning
    for entry in list_of(delta.thinking_blocks or delta.content_blocks):
        if isinstance(entry, dict):
            piece = entry.get("delta")
            yield piece if isinstance(piece, dict) else entry
    if isinstance(delta.content, list):
        for piece in summaries(delta.content):
            if isinstance(piece.get("signature"), str):  # other models' have none, not even empty
                yield {"thinking": piece.get("text"), "signature": piece["signature"]}


def _detail(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the detail that a block stands for; None if it is not of reasoning, or empty."""
    thought, signature, data = map(block.get, ("thinking", "signature", "data"))
    if isinstance(data, str) and data:
        return {"type": "reasoning.encrypted", "data": data}
    said = {"text": thought, "signature": signature}
    detail = {name: value for name, value in said.items() if value and isinstance(value, str)}
    return {"type": "reasoning.text", **detail} if detail else None
