"""What the adapters of OpenAI's wires share: one model behind one address, in one of its APIs."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, NamedTuple

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import Auth, KeyAuth
from backends.base import BackendConfig, Capabilities, Probe
from backends.probing import asked
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.vendors import API, Vendor
from backends.wire import embeddings_request, responses_request
from backends.wire.checks import CUSTOM_TOOLS
from backends.wire.completions_request import COMPLETIONS_FIELDS, UPSTREAM_FIELDS
from backends.wire.completions_request import encode_request as encode_completions
from backends.wire.completions_stream import CompletionsDecoder
from backends.wire.decoder import AnswerDecoder
from backends.wire.embeddings_request import EMBEDDINGS_FIELDS
from backends.wire.embeddings_stream import EmbeddingsDecoder
from backends.wire.openai_chat import StreamDecoder
from backends.wire.openai_form import shaped
from backends.wire.openai_request import CHAT_FIELDS
from backends.wire.responses_request import RESPONSES_FIELDS
from backends.wire.responses_stream import ResponsesDecoder

MODELS: Final = "/models"
"""Where an API lists its models."""


class Call(NamedTuple):
    """What to ask, and how to read the answer."""

    path: str
    body: dict[str, Any]
    decoder: AnswerDecoder


class OpenAILike:
    """One model behind one address. Adapters change what their kind does otherwise."""

    chat_decoder: type[StreamDecoder] = StreamDecoder

    def __init__(self, config: BackendConfig, row: Vendor, api: API | None = None) -> None:
        """Prepare; nothing connects yet.

        Args:
            config: with a ``base_url``.
            row: what is known of the vendor.
            api: what to speak; None: what the vendor speaks.
        """
        self.config = config
        self.row = row
        self.api: API = api or row.api
        self.capabilities = Capabilities(fields=fields_of(self.api) - row.drop)
        self._transport = Transport(config)
        self._auth: Auth = KeyAuth(config.api_keys)
        if row.key_header:
            self._auth = KeyAuth(config.api_keys, row.key_header, "")

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for a streamed answer; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard covers it; HTTP has no field for it
        call = self.call(request)
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
        }
        if self.row.request_id:
            headers["X-Request-Id"] = request.request_id
        post = Post(self.path(call.path), headers, msgspec.json.encode(call.body))
        return AnswerStream(self._transport, post, call.decoder, self._auth)

    async def probe(self, *, deadline: float) -> Probe:
        """Ask for the list of models; see ``backends.base.Probing``."""
        found = await asked(
            self._transport, self._auth, self.path(MODELS), read=_names, deadline=deadline
        )
        if self.row.any_model or found.models is None:
            return dataclasses.replace(found, models=None)
        name, variant, _ = self.config.model.partition(":")
        if variant and name in found.models:  # how to route, or whom to ask: no list has it
            return dataclasses.replace(found, models=found.models | {self.config.model})
        return found

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()

    def path(self, path: str) -> str:
        """Return where a path of the API lies below ``base_url``."""
        return path

    def call(self, request: ChatRequest) -> Call:
        """Return what to ask for a request.

        Raises:
            Unsupported: it cannot be said in this API.
        """
        given = {"model": self.config.model, "options_key": self.config.options_key}
        if request.operation == "embeddings":
            asked = embeddings_request.encode_request(request, **given)
            return Call("/embeddings", asked, EmbeddingsDecoder(len(request.inputs)))
        if self.api == "responses":
            asked = responses_request.encode_request(request, **given)
            return Call("/responses", asked, ResponsesDecoder())
        if self.api == "completions":
            asked = encode_completions(request, **given)
            return Call("/completions", asked, CompletionsDecoder())
        decoder = self.chat_decoder(
            implied_reason=self.row.implied_reason or None,
            think_tags=self.row.think_tags,
            one_reason=self.row.one_reason,
        )
        return Call(self.row.path, shaped(request, self.row, **given), decoder)


def fields_of(api: API) -> frozenset[str]:
    """Return the request fields and part types that an API can honor at all."""
    if api == "completions":
        return UPSTREAM_FIELDS | COMPLETIONS_FIELDS | EMBEDDINGS_FIELDS
    fields = RESPONSES_FIELDS if api == "responses" else CHAT_FIELDS
    return fields | EMBEDDINGS_FIELDS | {CUSTOM_TOOLS}


def need_address(config: BackendConfig, example: str) -> None:
    """Check that there is an address and a model.

    Raises:
        ValueError: naming the key, and what to write.
    """
    if not config.base_url.startswith(("http://", "https://")):
        raise ValueError(f"'base_url': needed here, such as {example}")
    if not config.model:
        raise ValueError("'model': needed here: the upstream's name of the model")


def _names(document: Any) -> frozenset[str]:
    """Return the names in a list of models; some servers send it without the object around it."""
    rows = document["data"] if isinstance(document, dict) else document
    return frozenset(str(row["id"]) for row in rows)
