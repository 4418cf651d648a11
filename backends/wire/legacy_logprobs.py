"""Log probabilities in the shape of legacy Completions, and in that of chat.

Events carry chat's shape (``{"content": [{"token", "logprob", "bytes", "top_logprobs"}]}``).
Source: OpenAI's API reference, the two completion objects (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any


def to_legacy(content: Sequence[Any], offset: int) -> dict[str, Any]:
    """Return chat's entries as parallel lists.

    Args:
        content: the entries; those that are no objects are left out.
        offset: characters of the choice's text before the first of them.
    """
    entries = [entry for entry in content if isinstance(entry, Mapping)]
    tokens = [str(entry.get("token", "")) for entry in entries]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [entry.get("logprob") for entry in entries],
        "top_logprobs": [_tops(entry.get("top_logprobs")) for entry in entries],
        "text_offset": offsets,
    }


def from_legacy(document: Any) -> dict[str, Any] | None:
    """Return parallel lists as chat's entries; None if there are none."""
    tokens = document.get("tokens") if isinstance(document, Mapping) else None
    if not isinstance(tokens, list) or not tokens:
        return None
    rows = zip_longest(tokens, _list(document, "token_logprobs"), _list(document, "top_logprobs"))
    return {
        "content": [
            {
                "token": token,
                "logprob": logprob,
                "bytes": None,
                "top_logprobs": [{"token": t, "logprob": p} for t, p in tops.items()]
                if isinstance(tops, Mapping)
                else [],
            }
            for token, logprob, tops in rows
            if isinstance(token, str)
        ]
    }


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _tops(entries: Any) -> dict[str, Any] | None:
    if not isinstance(entries, list) or not entries:
        return None
    return {str(e.get("token")): e.get("logprob") for e in entries if isinstance(e, Mapping)}
