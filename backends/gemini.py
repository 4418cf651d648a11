"""Google's Gemini API: generateContent with an API key.

Source: ai.google.dev/api/generate-content (read 2026-11).
"""

from __future__ import annotations

import dataclasses
from typing import Final
from urllib.parse import quote

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import KeyAuth
from backends.base import BackendConfig, Capabilities
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire.gemini_request import FIELDS, encode_request
from backends.wire.gemini_stream import GeminiDecoder

BASE_URL: Final = "https://generativelanguage.googleapis.com/v1beta"

KEY_ENV = "GEMINI_API_KEY"
"""The usual variable of its key."""

PRICES = "google"
"""Its section in the table of list prices."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no model.
    """
    if not config.model:
        raise ValueError("'model': needed here: the upstream's name, such as gemini-2.5-flash")


def build(config: BackendConfig) -> GeminiBackend:
    """Build a backend for ``base_url`` (up to and including ``/v1beta``), or for Google's."""
    return GeminiBackend(config)


class GeminiBackend:
    """One model of the Gemini API."""

    capabilities = Capabilities(fields=FIELDS)

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        self._config = config
        self._transport = Transport(
            dataclasses.replace(config, base_url=config.base_url or BASE_URL)
        )
        self._auth = KeyAuth(config.api_keys, header="x-goog-api-key", scheme="")
        # `tunedModels/...` is a name of the API, too.
        name = config.model if "/" in config.model else f"models/{config.model}"
        self._path = f"/{quote(name, safe='/@')}:streamGenerateContent?alt=sse"

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
        call = Post(self._path, headers, msgspec.json.encode(body))
        return AnswerStream(self._transport, call, GeminiDecoder(), self._auth)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()
