"""Vectors on the wire: numbers, or base64 of little-endian 32-bit floats."""

from __future__ import annotations

import binascii
import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from math import isfinite

from backends.errors import ProtocolError
from backends.types import StreamEvent, Usage, VectorDelta
from backends.wire.decoder import AnswerDecoder

_FLOAT_BYTES = 4


def floats(vector: list[float] | str) -> list[float]:
    """Return a vector as numbers.

    Raises:
        ProtocolError: it is text, and not base64 of whole floats.
    """
    if not isinstance(vector, str):
        return vector
    try:
        data = b64decode(vector, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError("an embedding is text, but no base64") from error
    if len(data) % _FLOAT_BYTES:
        raise ProtocolError("an embedding is not made of 32-bit floats")
    values = _swapped(array("f", data)).tolist()
    if not isfinite(sum(values)):
        raise ProtocolError("an embedding has a component that is no number")
    return values


def base64_text(vector: list[float] | str) -> str:
    """Return a vector as base64; beyond 32 bits a number loses digits."""
    if isinstance(vector, str):
        return vector
    return b64encode(_swapped(array("f", vector)).tobytes()).decode()


def _swapped(values: array[float]) -> array[float]:
    if sys.byteorder == "big":
        values.byteswap()
    return values


class VectorsDecoder(AnswerDecoder):
    """What the decoders of embeddings share: one document, and a vector for each input."""

    def __init__(self, inputs: int, new_id: Callable[[], str] | None = None) -> None:
        """Expect one vector for each of so many ``inputs``."""
        super().__init__(new_id)
        self._inputs = inputs

    def framing(self, first: bytes) -> None:
        """It is one document, whatever it begins with."""

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; there are no payloads beside the document."""
        raise ProtocolError(f"an answer of {self.wire} wire does not come as a stream")

    def vectors(
        self, vectors: Sequence[list[float] | str], prompt: int | None, events: list[StreamEvent]
    ) -> None:
        """Add the vectors in the inputs' order, and the end.

        Args:
            vectors: as the upstream wrote them.
            prompt: the tokens it read, or None.
            events: what they are added to.

        Raises:
            ProtocolError: there are more or fewer than inputs, or one is empty or unreadable.
        """
        if len(vectors) != self._inputs:
            raise ProtocolError(
                f"the upstream sent {len(vectors)} embeddings for {self._inputs} inputs"
            )
        for index, vector in enumerate(vectors):
            if not vector or (isinstance(vector, str) and not floats(vector)):
                raise ProtocolError(f"the upstream's embedding {index} is empty")
        events.extend(VectorDelta(index, vector) for index, vector in enumerate(vectors))
        self.end_choice(events, 0, "stop")
        self.report(None if prompt is None else Usage(prompt, 0), events)
