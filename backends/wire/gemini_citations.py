"""Google's grounding and citations, as OpenAI's ``url_citation`` annotations.

Source: "GroundingMetadata" and "CitationMetadata", ai.google.dev/api/generate-content (read
2026-11). Their offsets count UTF-8 bytes of the text so far, OpenAI's count characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backends.wire.values import count


class Citations:
    """What one candidate cites; chunks repeat themselves, so each citation counts once."""

    __slots__ = ("_known", "_texts")

    def __init__(self) -> None:
        """Start before the first text."""
        self._texts: list[str] = []
        self._known: set[tuple[str, int | None, int | None]] = set()

    def said(self, text: str) -> None:
        """Note visible text: citations tell of places in it."""
        self._texts.append(text)

    def read(self, grounding: Any, citations: Any) -> list[dict[str, Any]]:
        """Return the annotations that two metadata objects of a candidate add."""
        found = [*_grounded(grounding), *_cited(citations)]
        if not found:
            return []
        text = "".join(self._texts).encode("utf-8", "replace")
        annotations = []
        for url, title, start, end in found:
            if (url, start, end) not in self._known:
                self._known.add((url, start, end))
                citation: dict[str, Any] = {"url": url, "title": title}
                citation["start_index"] = _characters(text, start or 0)
                citation["end_index"] = _characters(text, end or 0)
                annotations.append({"type": "url_citation", "url_citation": citation})
        return annotations


def _grounded(metadata: Any) -> Iterator[tuple[str, str, int | None, int | None]]:
    """Yield the pages of ``groundingChunks``, with each place that rests on them."""
    pages = [_page(chunk) for chunk in _list(metadata, "groundingChunks")]
    placed = set()
    for support in _list(metadata, "groundingSupports"):
        segment = support.get("segment") if isinstance(support, dict) else None
        segment = segment if isinstance(segment, dict) else {}
        start, end = count(segment.get("startIndex")), count(segment.get("endIndex"))
        for number in _list(support, "groundingChunkIndices"):
            if isinstance(number, int) and 0 <= number < len(pages) and pages[number][0]:
                placed.add(number)
                yield *pages[number], start, end
    for number, page in enumerate(pages):
        if page[0] and number not in placed:
            yield *page, None, None


def _cited(metadata: Any) -> Iterator[tuple[str, str, int | None, int | None]]:
    """Yield the sources of ``citationMetadata``, under either of its names."""
    for name in ("citationSources", "citations"):
        for source in _list(metadata, name):
            url, title = _page({"web": source})
            if url:
                start, end = count(source.get("startIndex")), count(source.get("endIndex"))
                yield url, title, start, end


def _page(chunk: Any) -> tuple[str, str]:
    """Return address and title of a grounding chunk; empty where there is none."""
    if isinstance(chunk, dict):
        for name in ("web", "retrievedContext", "maps"):
            page = chunk.get(name)
            if isinstance(page, dict) and isinstance(page.get("uri"), str):
                title = page.get("title")
                return page["uri"], title if isinstance(title, str) else ""
    return "", ""


def _list(document: Any, name: str) -> list[Any]:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, list) else []


def _characters(text: bytes, place: int) -> int:
    """Return how many characters the first bytes of a text make; beyond its end, the bytes."""
    if not 0 <= place <= len(text):
        return place
    return len(text[:place].decode("utf-8", "ignore"))
