"""Text Generation Inference's own API: one text goes on."""

from __future__ import annotations

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import KeyAuth
from backends.base import BackendConfig, Capabilities
from backends.defaults import headers
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire.tgi_request import encode_request
from backends.wire.tgi_stream import TGIDecoder

FIELDS = frozenset(
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


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no base URL.
    """
    if not config.base_url.startswith(("http://", "https://")):
        raise ValueError("'base_url': needed here, such as http://127.0.0.1:3000")


def build(config: BackendConfig) -> TGIBackend:
    """Build a backend for ``base_url`` (below which ``/generate_stream`` is)."""
    return TGIBackend(config)


class TGIBackend:
    """The one model of a server."""

    capabilities = Capabilities(fields=FIELDS)

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        self._config = config
        self._transport = Transport(config)
        self._auth = KeyAuth(config.api_keys)

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for a streamed answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        body = encode_request(
            request, model=self._config.model, options_key=self._config.options_key
        )
        call = Post("/generate_stream", headers(request), msgspec.json.encode(body))
        return AnswerStream(self._transport, call, TGIDecoder(request.stop), self._auth)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()
