"""Any URL that speaks OpenAI Chat Completions: vendors, vLLM, llama.cpp, another gateway."""

from __future__ import annotations

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import KeyAuth
from backends.base import BackendConfig, Capabilities
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire.openai_chat import StreamDecoder
from backends.wire.openai_request import encode_request


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no base URL or no model.
    """
    if not config.base_url.startswith(("http://", "https://")):
        raise ValueError("'base_url': needed here, such as https://api.example.com/v1")
    if not config.model:
        raise ValueError("'model': needed here: the upstream's name of the model")


def build(config: BackendConfig) -> OpenAIBackend:
    """Build a backend for ``base_url`` (up to and including ``/v1``)."""
    return OpenAIBackend(config)


class OpenAIBackend:
    """One model behind one OpenAI-like URL."""

    capabilities = Capabilities(fields=None)

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
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "X-Request-Id": request.request_id,
        }
        call = Post("/chat/completions", headers, msgspec.json.encode(body))
        return AnswerStream(self._transport, call, StreamDecoder(), self._auth)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()
