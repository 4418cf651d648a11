"""Google's grounding and citations, as OpenAI's ``url_citation`` annotations.

Source: "GroundingMetadata" and "CitationMetadata", ai.google.dev/api/generate-content (read
2026-11). Their offsets count UTF-8 bytes of the text so far, OpenAI's count characters. What has no
address becomes an Anthropic ``search_result_location``, as the nearest shape that clients know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from backends.wire.values import count


class _Source(NamedTuple):
    """What is cited."""

    url: str
    title: str
    name: str
    """Of a document without an address."""

    text: str
    """The words of it that count, where the upstream tells them."""


class _Cited(NamedTuple):
    """A source, and where in the text it is cited: bytes."""

    source: _Source
    start: int | None
    end: int | None


class Citations:
    """What one candidate cites; chunks repeat themselves, so each citation counts once."""

    __slots__ = ("_known", "_pages", "_placed", "_texts")

    def __init__(self) -> None:
        """Start before the first text."""
        self._texts: list[str] = []
        self._known: set[_Cited] = set()
        self._pages: list[_Source | None] = []
        """Of the last ``groundingChunks``: what supports later in the stream name by number."""

        self._placed: dict[_Source, bool] = {}
        """Of all pages there were, whether a place in the text rests on them."""

    def said(self, text: str) -> None:
        """Note visible text: citations tell of places in it."""
        self._texts.append(text)

    def read(self, grounding: Any, citations: Any, *, ended: bool) -> list[dict[str, Any]]:
        """Return the annotations that two metadata objects of a candidate add.

        Pages on which no place rests are told once it has ``ended``: later chunks may place them.
        """
        found = [*self._grounded(grounding), *_cited(citations)]
        if ended:
            rest = [page for page, placed in self._placed.items() if not placed]
            self._placed.update(dict.fromkeys(rest, True))
            found += [_Cited(page, None, None) for page in rest]
        if not found:
            return []
        text = "".join(self._texts).encode("utf-8", "replace")
        annotations = []
        for cited in found:
            # What is told without a place is told once.
            known = cited if cited.source.url else cited._replace(start=None, end=None)
            if known not in self._known:
                self._known.add(known)
                annotations.append(_annotation(cited, text, len(self._known) - 1))
        return annotations

    def _grounded(self, metadata: Any) -> Iterator[_Cited]:
        """Yield the pages of ``groundingChunks`` with each place that rests on them."""
        if chunks := _list(metadata, "groundingChunks"):
            self._pages = [_page(chunk) for chunk in chunks]
            for page in self._pages:
                if page is not None:
                    self._placed.setdefault(page, False)
        for support in _list(metadata, "groundingSupports"):
            segment = support.get("segment") if isinstance(support, dict) else None
            segment = segment if isinstance(segment, dict) else {}
            start, end = count(segment.get("startIndex")), count(segment.get("endIndex"))
            for number in _list(support, "groundingChunkIndices"):
                known = isinstance(number, int) and 0 <= number < len(self._pages)
                if known and (page := self._pages[number]) is not None:
                    self._placed[page] = True
                    yield _Cited(page, start, end)


def _cited(metadata: Any) -> Iterator[_Cited]:
    """Yield the sources of ``citationMetadata``, under either of its names."""
    for name in ("citationSources", "citations"):
        for source in _list(metadata, name):
            if (page := _page({"web": source})) is not None:
                start, end = count(source.get("startIndex")), count(source.get("endIndex"))
                yield _Cited(page, start, end)


def _page(chunk: Any) -> _Source | None:
    """Return what a grounding chunk names; None where that is nothing."""
    if isinstance(chunk, dict):
        for kind in ("web", "retrievedContext", "maps"):
            page = chunk.get(kind)
            if isinstance(page, dict):
                names = ("uri", "title", "documentName", "text")
                said = [page.get(name) for name in names]
                source = _Source(*(word if isinstance(word, str) else "" for word in said))
                return source if any(source) else None
    return None


def _annotation(cited: _Cited, text: bytes, number: int) -> dict[str, Any]:
    source = cited.source
    if not source.url:
        found = {
            "type": "search_result_location",
            "cited_text": source.text,
            "source": source.name or source.title,
            "title": source.title or None,
            "search_result_index": number,
            "start_block_index": 0,
            "end_block_index": 0,
        }
        return {"type": "citation", "citation": found}
    citation: dict[str, Any] = {"url": source.url, "title": source.title}
    citation["start_index"] = _characters(text, cited.start or 0)
    citation["end_index"] = _characters(text, cited.end or 0)
    return {"type": "url_citation", "url_citation": citation}


def _list(document: Any, name: str) -> list[Any]:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, list) else []


def _characters(text: bytes, place: int) -> int:
    """Return how many characters the first bytes of a text make; beyond its end, the bytes."""
    if not 0 <= place <= len(text):
        return place
    return len(text[:place].decode("utf-8", "ignore"))
