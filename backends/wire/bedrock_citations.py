"""Citations of Bedrock's Converse: links in OpenAI's shape, places in documents in Anthropic's.

Source: ``Citation`` in the API reference of Amazon Bedrock Runtime and its service model (botocore
1.44.5, read 2026-11); "Citations" in Anthropic's Messages API, whose models make them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_DOCUMENTS: Final[Mapping[str, tuple[str, str]]] = {
    "documentChar": ("char_location", "char_index"),
    "documentPage": ("page_location", "page_number"),
    "documentChunk": ("content_block_location", "block_index"),
}
"""Kinds of places in documents: Anthropic's name, and what its beginning and end are called."""


def annotation(citation: Mapping[str, Any], span: tuple[int, int]) -> dict[str, Any] | None:
    """Return a citation as an entry of ``annotations``; None if it names no place.

    Args:
        citation: as the upstream wrote it.
        span: where the answer's text is that it is about, in characters.
    """
    location = citation.get("location")
    location = location if isinstance(location, Mapping) else {}
    source = citation.get("sourceContent")
    pieces = source if isinstance(source, list) else ()
    texts = [piece.get("text") for piece in pieces if isinstance(piece, Mapping)]
    content = "".join(text for text in texts if isinstance(text, str))
    web = location.get("web")
    url = (web.get("url") if isinstance(web, Mapping) else None) or citation.get("source")
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        link: dict[str, Any] = {
            "url": url,
            "title": citation.get("title") or "",
            "start_index": span[0],
            "end_index": span[1],
        }
        if content:
            link["content"] = content
        return {"type": "url_citation", "url_citation": link}
    for name, (kind, unit) in _DOCUMENTS.items():
        if isinstance(place := location.get(name), Mapping):
            told = {
                "type": kind,
                "cited_text": content,
                "document_index": place.get("documentIndex") or 0,
                "document_title": citation.get("title"),
                f"start_{unit}": place.get("start") or 0,
                f"end_{unit}": place.get("end") or 0,
            }
            return {"type": "citation", "citation": told}
    if isinstance(place := location.get("searchResultLocation"), Mapping):
        found = {
            "type": "search_result_location",
            "cited_text": content,
            "source": citation.get("source") or "",
            "title": citation.get("title"),
            "search_result_index": place.get("searchResultIndex") or 0,
            "start_block_index": place.get("start") or 0,
            "end_block_index": place.get("end") or 0,
        }
        return {"type": "citation", "citation": found}
    return None
