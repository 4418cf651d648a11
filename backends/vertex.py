"""Google Cloud's Vertex AI: Gemini's wire, or Anthropic's for the models of Anthropic.

Source: docs.cloud.google.com/vertex-ai, "Method: endpoints.streamGenerateContent" and "Claude
models" (read 2026-11).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import Auth, KeyAuth
from backends.base import BackendConfig, Capabilities
from backends.google_auth import application_default, service_account
from backends.token_auth import TokenAuth
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire import gemini_request, messages_upstream
from backends.wire.decoder import AnswerDecoder
from backends.wire.gemini_stream import GeminiDecoder
from backends.wire.messages_stream import MessagesDecoder

ANTHROPIC_VERSION: Final = "vertex-2023-10-16"
PRICES = "google"
"""Its section in the table of list prices."""


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    project: str = ""
    """The project that pays."""

    location: str = "global"
    """A region such as ``us-east5``, a multi-region (``us``, ``eu``), or ``global``."""

    api: Literal["gemini", "anthropic"] | None = None
    """The wire that the model speaks; absent: that of its publisher."""

    publisher: Literal["google", "anthropic"] | None = None
    """Whose model it is; absent: that of the wire."""

    adaptive_thinking: bool = False
    """Of Anthropic's models: it takes a level of effort instead of a budget of thinking tokens."""

    credentials_file: str = ""
    """A service account's key file. Absent, the key is an access token; without one Google's
    default credentials are used."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no model or no project.
    """
    if not config.model:
        raise ValueError("'model': needed here: the upstream's name, such as gemini-2.5-flash")
    if not _options(config).project:
        raise ValueError("'project': needed here: the id of the Google Cloud project")


def build(config: BackendConfig) -> VertexBackend:
    """Build a backend for ``base_url`` (up to and including ``/v1``), or for Google's.

    Raises:
        ValueError: the credentials file is none, or the extra ``gcp`` is not installed.
    """
    return VertexBackend(config)


class VertexBackend:
    """One model of one project, in one location."""

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        options = _options(config)
        self._config = config
        self._anthropic = (options.api or options.publisher) == "anthropic"
        self.capabilities = (
            Capabilities(fields=messages_upstream.MESSAGES_FIELDS, caps_output=True)
            if self._anthropic
            else Capabilities(fields=gemini_request.FIELDS)
        )
        publisher = options.publisher or ("anthropic" if self._anthropic else "google")
        verb = "streamRawPredict" if self._anthropic else "streamGenerateContent?alt=sse"
        self._path = (
            f"/projects/{quote(options.project, safe='')}"
            f"/locations/{quote(options.location, safe='')}"
            f"/publishers/{publisher}/models/{quote(config.model, safe='@')}:{verb}"
        )
        base_url = config.base_url or f"https://{_host(options.location)}/v1"
        self._transport = Transport(dataclasses.replace(config, base_url=base_url))
        self._auth = _auth(config, options.credentials_file)

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for a streamed answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        speak = _as_anthropic if self._anthropic else _as_gemini
        body, decoder = speak(request, self._config)
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "X-Request-Id": request.request_id,
        }
        call = Post(self._path, headers, msgspec.json.encode(body))
        return AnswerStream(self._transport, call, decoder, self._auth)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()


def _as_gemini(request: ChatRequest, config: BackendConfig) -> tuple[dict[str, Any], AnswerDecoder]:
    body = gemini_request.encode_request(
        request, model=config.model, options_key=config.options_key
    )
    return body, GeminiDecoder()


def _as_anthropic(
    request: ChatRequest, config: BackendConfig
) -> tuple[dict[str, Any], AnswerDecoder]:
    """Here the URL names the model, and the body the version."""
    body = messages_upstream.encode_request(
        request,
        model=config.model,
        options_key=config.options_key,
        adaptive=_options(config).adaptive_thinking,
    )
    del body["model"]
    return {**body, "anthropic_version": ANTHROPIC_VERSION}, MessagesDecoder()


def _host(location: str) -> str:
    """Return the host that serves a location."""
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def _auth(config: BackendConfig, credentials_file: str) -> Auth:
    """Return what authenticates requests; without a key only Google is shown its own credentials.

    Raises:
        ValueError: the credentials file is none, or the extra ``gcp`` is not installed.
    """
    if credentials_file:
        return TokenAuth(service_account(credentials_file))
    url = urlsplit(config.base_url)
    of_google = url.scheme == "https" and (url.hostname or "").endswith(".googleapis.com")
    if config.api_keys or (config.base_url and not of_google):
        return KeyAuth(config.api_keys)
    return TokenAuth(application_default())


def _options(config: BackendConfig) -> Options:
    return msgspec.convert(dict(config.options), Options)
