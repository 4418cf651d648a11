"""Any URL that speaks OpenAI Chat Completions: vendors, vLLM, llama.cpp, another gateway."""

from __future__ import annotations

import msgspec

from backends.auth import bearer
from backends.base import BackendConfig, Capabilities
from backends.openai_stream import EventStream
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire.openai_request import encode_request


def build(config: BackendConfig) -> OpenAIBackend:
    """Build a backend for ``base_url`` (up to and including ``/v1``).

    Raises:
        ValueError: there is no base URL.
    """
    if not config.base_url:
        raise ValueError("backend 'openai' needs 'base_url', such as https://api.example.com/v1")
    return OpenAIBackend(config)


class OpenAIBackend:
    """One model behind one OpenAI-like URL."""

    capabilities = Capabilities(fields=None)

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        self._config = config
        self._transport = Transport(config)

    def stream(self, request: ChatRequest, *, deadline: float) -> EventStream:
        """Ask for a streamed answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        body = encode_request(
            request, model=self._config.model, options_key=self._config.options_key
        )
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "X-Request-Id": request.request_id,
            **bearer(self._config.api_key),
        }
        call = Post("/chat/completions", headers, msgspec.json.encode(body))
        return EventStream(self._transport, call)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()
