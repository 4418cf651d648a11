"""OpenAI's Embeddings answers, as upstreams send them: always whole."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.errors import ProtocolError
from backends.types import StreamEvent
from backends.wire.values import count
from backends.wire.vectors import VectorsDecoder


class _Item(msgspec.Struct, gc=False):
    embedding: list[float] | str
    index: int | None = None


class EmbeddingsDecoder(VectorsDecoder):
    """Turns the body of one answer into vectors in the inputs' order."""

    wire = "OpenAI's embeddings"

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        try:
            items = msgspec.convert(document.get("data"), list[_Item])
        except msgspec.ValidationError as error:
            raise ProtocolError(f"the upstream's answer is not of {self.wire} wire") from error
        placed = {
            position if item.index is None else item.index: item.embedding
            for position, item in enumerate(items)
        }
        if len(placed) != len(items) or placed.keys() != set(range(len(items))):
            raise ProtocolError("the upstream's embeddings have no order: indexes are missing")
        self.begin(events, document.get("id"), document.get("model"))
        vectors = [placed[index] for index in sorted(placed)]
        self.vectors(vectors, _prompt_tokens(document.get("usage")), events)


def _prompt_tokens(usage: Any) -> int | None:
    if not isinstance(usage, dict):
        return None
    prompt = count(usage.get("prompt_tokens"))
    return count(usage.get("total_tokens")) if prompt is None else prompt
