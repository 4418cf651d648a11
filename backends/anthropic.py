"""Anthropic's Messages API, or any URL that speaks it."""

from __future__ import annotations

import dataclasses

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import KeyAuth
from backends.base import BackendConfig, Capabilities
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire.messages_request import encode_request
from backends.wire.messages_stream import MessagesDecoder
from backends.wire.messages_upstream import MESSAGES_FIELDS

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"

KEY_ENV = "ANTHROPIC_API_KEY"
"""The usual variable of its key."""

PRICES = "anthropic"
"""Its section in the table of list prices."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What only endpoints of this kind have."""

    anthropic_version: str = VERSION
    """The ``anthropic-version`` header."""

    anthropic_betas: tuple[str, ...] = ()
    """The betas that the endpoint uses (the ``anthropic-beta`` header)."""

    adaptive_thinking: bool = False
    """The model takes a level of effort instead of a budget of thinking tokens."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no model, or the base URL is none.
    """
    if config.base_url and not config.base_url.startswith(("http://", "https://")):
        raise ValueError(f"'base_url': must be an address such as {BASE_URL}")
    if not config.model:
        raise ValueError("'model': needed here: Anthropic's name of the model")


def build(config: BackendConfig) -> AnthropicBackend:
    """Build a backend; ``base_url`` may end in ``/v1`` or stand before it."""
    return AnthropicBackend(config)


class AnthropicBackend:
    """One model behind one URL of the Messages API."""

    capabilities = Capabilities(fields=MESSAGES_FIELDS, caps_output=True)
    """A bound is always wanted: this wire has no answer without ``max_tokens``."""

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        self._config = config
        self._options = msgspec.convert(dict(config.options), Options)
        root = (config.base_url or BASE_URL).rstrip("/").removesuffix("/v1")
        self._transport = Transport(dataclasses.replace(config, base_url=root))
        self._auth = KeyAuth(config.api_keys, header="x-api-key", scheme="")

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for a streamed answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        options = self._options
        body = encode_request(
            request,
            model=self._config.model,
            options_key=self._config.options_key,
            adaptive=options.adaptive_thinking,
        )
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "X-Request-Id": request.request_id,
            "anthropic-version": options.anthropic_version,
        }
        if options.anthropic_betas:
            headers["anthropic-beta"] = ",".join(options.anthropic_betas)
        call = Post("/v1/messages", headers, msgspec.json.encode(body))
        return AnswerStream(self._transport, call, MessagesDecoder(), self._auth)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()
