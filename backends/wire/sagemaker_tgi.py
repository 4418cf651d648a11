"""TGI's own wire within SageMaker's frames."""

from __future__ import annotations

from typing import Final

from backends.wire.sagemaker_stream import PartsDecoder
from backends.wire.tgi_request import encode_request
from backends.wire.tgi_stream import TGIDecoder

__all__ = ["FIELDS", "TGIPartsDecoder", "encode_request"]

FIELDS: Final = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stop",
        "repetition_penalty",
        "frequency_penalty",
    }
)
"""What ``encode_request`` says in this wire."""


class TGIPartsDecoder(PartsDecoder, TGIDecoder):
    """TGI's own answers, streamed or whole, within SageMaker's frames."""
