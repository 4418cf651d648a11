"""Ollama's own API: chat, embed and the list of what is there."""

from __future__ import annotations

from typing import Any

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import KeyAuth
from backends.base import BackendConfig, Capabilities, Probe
from backends.defaults import headers, needs_model, with_base
from backends.probing import asked
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire.ollama_request import encode_embed, encode_request
from backends.wire.ollama_stream import OllamaDecoder, OllamaEmbedDecoder

BASE_URL = "http://127.0.0.1:11434"

FIELDS = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "tools",
        "response_format",
        "reasoning",
        "reasoning_effort",
        "image_url",
        "embeddings",
        "embeddings.dimensions",
    }
)


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    num_ctx: int | None = None
    """The context to load the model with, tokens; the server's default cuts long prompts."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no model, or ``num_ctx`` is none.
    """
    needs_model(config)
    window = config.options.get("num_ctx")
    if window is not None and window < 1:
        raise ValueError("'num_ctx': at least 1 token")


def build(config: BackendConfig) -> OllamaBackend:
    """Build a backend for ``base_url`` (without ``/api``), by default this machine's."""
    return OllamaBackend(with_base(config, BASE_URL))


class OllamaBackend:
    """One model of a server."""

    capabilities = Capabilities(fields=FIELDS)

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        self._config = config
        self._window = msgspec.convert(dict(config.options), Options).num_ctx
        self._transport = Transport(config)
        self._auth = KeyAuth(config.api_keys)

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for an answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        model, key = self._config.model, self._config.options_key
        decoder: OllamaDecoder | OllamaEmbedDecoder
        if request.operation == "embeddings":
            path, decoder = "/api/embed", OllamaEmbedDecoder(len(request.inputs))
            body = encode_embed(request, model=model, options_key=key)
        else:
            path, decoder = "/api/chat", OllamaDecoder()
            body = encode_request(request, model=model, options_key=key, window=self._window)
        call = Post(path, headers(request, "application/x-ndjson"), msgspec.json.encode(body))
        return AnswerStream(self._transport, call, decoder, self._auth)

    async def probe(self, *, deadline: float) -> Probe:
        """Ask what is there; see ``backends.base.Probing``."""
        return await asked(self._transport, self._auth, "/api/tags", read=_names, deadline=deadline)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()


def _names(document: Any) -> frozenset[str]:
    """Return the names of a list; a name without a tag means its latest."""
    names = {str(row["name"]) for row in document["models"]}
    return frozenset(names | {name.removesuffix(":latest") for name in names})
