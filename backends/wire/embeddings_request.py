"""OpenAI's Embeddings requests: a client's body in, an upstream's body out.

Source: OpenAI's API reference, "Create embeddings", and OpenRouter's SDK for ``input_type`` and
``provider`` (read 2026-11). Inputs are texts or token ids; media are not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.types import ChatRequest, Native
from backends.wire import checks, vendor_options
from backends.wire.checks import InvalidRequest
from backends.wire.dialect import Decoded
from backends.wire.openai_request import (
    NOT_SENT,
    check_fields,
    models_of,
    parse,
    preferences_of,
)
from backends.wire.prompts import read_inputs

WIRE = "embeddings"

EMBEDDINGS_FIELDS = frozenset(
    {"embeddings", "embeddings.input", "embeddings.dimensions", "embeddings.input_type"}
)
"""What an endpoint of OpenAI's wire can honor; ``embeddings.input`` is token ids as inputs."""

_SENT = ("input", "dimensions", "encoding_format", "input_type")
_GATEWAYS = ("model", "models", "provider", "user", "metadata", "trace", "usage", "route", "stream")


def _any(path: str, value: Any) -> None:
    """``input`` is read as a whole, by ``read_inputs``."""


_KNOWN: Mapping[str, checks.Check] = {
    **{name: NOT_SENT[name] for name in _GATEWAYS},
    "input": _any,
    "dimensions": checks.integer(1),
    "encoding_format": checks.one_of("float", "base64"),
    "input_type": checks.text,
}


def decode_request(body: bytes) -> Decoded:
    """Read and check one embeddings request.

    Raises:
        InvalidRequest: what is wrong, where, and what to write instead.
    """
    document = parse(body)
    check_fields(document, _KNOWN)
    if document.get("stream"):
        raise InvalidRequest(
            "'stream': embeddings come whole; leave it out", "stream", "unsupported"
        )
    inputs = read_inputs("input", document.get("input"))
    required = {"embeddings"}
    required |= {
        f"{WIRE}.{name}" for name in ("dimensions", "input_type") if document.get(name) is not None
    }
    if inputs.tokens:
        required.add("embeddings.input")
    request = ChatRequest(
        models=models_of(document),
        messages=(),
        params={},
        required=frozenset(required),
        prompt_bytes=len(body) + inputs.frame_bytes,
        content_bytes=inputs.content_bytes,
        operation="embeddings",
        inputs=inputs.items,
        native=Native(WIRE, document),
        provider=preferences_of(document.get("provider") or {}),
    )
    return Decoded(request, stream=False)


def encode_request(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body for an upstream of OpenAI's embeddings; see chat's ``encode_request``."""
    document = request.native.body if request.native is not None else {}
    body: dict[str, Any] = {"model": model}
    body |= {name: document[name] for name in _SENT if document.get(name) is not None}
    vendor_options.add(body, request, options_key)
    return body


def wants_base64(request: ChatRequest) -> bool:
    """Whether the client asked for vectors in base64."""
    native = request.native
    return native is not None and native.body.get("encoding_format") == "base64"
