"""Cohere's v2 API: chat and embed."""

from __future__ import annotations

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import KeyAuth
from backends.base import BackendConfig, Capabilities
from backends.defaults import headers, needs_model, with_base
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire.cohere_request import encode_embed, encode_request
from backends.wire.cohere_stream import CohereDecoder, CohereEmbedDecoder

BASE_URL = "https://api.cohere.com"

FIELDS = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stop",
        "frequency_penalty",
        "presence_penalty",
        "tools",
        "tool_choice",
        "response_format",
        "reasoning",
        "reasoning_effort",
        "image_url",
        "embeddings",
        "embeddings.dimensions",
        "embeddings.input_type",
    }
)

KEY_ENV = "CO_API_KEY"
"""The usual variable of its key."""

PRICES = "cohere"
"""Its section in the table of list prices."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no model.
    """
    needs_model(config)


def build(config: BackendConfig) -> CohereBackend:
    """Build a backend for ``base_url`` (without ``/v2``), by default the vendor's own."""
    return CohereBackend(with_base(config, BASE_URL))


class CohereBackend:
    """One model at Cohere."""

    capabilities = Capabilities(fields=FIELDS)

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        self._config = config
        self._transport = Transport(config)
        self._auth = KeyAuth(config.api_keys)

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for an answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        model, key = self._config.model, self._config.options_key
        decoder: CohereDecoder | CohereEmbedDecoder
        if request.operation == "embeddings":
            path, decoder = "/v2/embed", CohereEmbedDecoder(len(request.inputs))
            body = encode_embed(request, model=model, options_key=key)
        else:
            path, decoder = "/v2/chat", CohereDecoder()
            body = encode_request(request, model=model, options_key=key)
        call = Post(path, headers(request), msgspec.json.encode(body))
        return AnswerStream(self._transport, call, decoder, self._auth)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()
