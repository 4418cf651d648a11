"""OpenAI's legacy Completions requests: a client's body in, an upstream's body out.

Source: OpenAI's API reference, "Create completion", and the fields that OpenRouter's route
takes beside them (read 2026-11). ``max_tokens`` has no default here: without it the bound is
that of any answer, not the 16 tokens of OpenAI's own server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.errors import Unsupported
from backends.types import ChatRequest, Native, utf8_bytes
from backends.wire import checks, vendor_options
from backends.wire.checks import InvalidRequest
from backends.wire.dialect import Decoded
from backends.wire.openai_request import (
    NOT_SENT,
    SAMPLING,
    check_fields,
    models_of,
    must_honor,
    parse,
    preferences_of,
)
from backends.wire.prompts import Inputs, read_inputs

WIRE = "completions"

COMPLETIONS_FIELDS = frozenset(
    {
        "completions.prompt",
        "completions.suffix",
        "completions.echo",
        "completions.logprobs",
    }
)
"""What only an upstream of this wire can honor; ``completions.prompt`` is several prompts, or
one of token ids."""

UPSTREAM_FIELDS: Final = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"}
    | {"repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "seed", "stop", "n"}
    | {"min_tokens", "ignore_eos", "stop_token_ids", "max_tokens", "max_completion_tokens"}
)
"""What of a chat request an upstream of this wire can honor."""

_OWN: Final = ("prompt", "suffix", "echo", "logprobs", "best_of")
_LIMITS: Final = ("max_tokens", "max_completion_tokens")

_SAMPLING = {
    name: check
    for name, check in SAMPLING.items()
    if name not in ("logprobs", "top_logprobs", "max_completion_tokens")
}
_NATIVE: dict[str, checks.Check] = {
    "suffix": checks.text,
    "echo": checks.boolean,
    "logprobs": checks.integer(0, 5),
    "best_of": checks.integer(1, 128),
}


def _any(path: str, value: Any) -> None:
    """``prompt`` is read as a whole, by ``read_inputs``."""


_KNOWN = (
    {name: check for name, check in NOT_SENT.items() if name != "messages"}
    | _SAMPLING
    | _NATIVE
    | {"prompt": _any}
)


def decode_request(body: bytes) -> Decoded:
    """Read and check one legacy completion request.

    Raises:
        InvalidRequest: what is wrong, where, and what to write instead.
    """
    document = parse(body)
    check_fields(document, _KNOWN)
    prompt = read_inputs("prompt", document.get("prompt"))
    params = {k: v for k, v in document.items() if k in _SAMPLING and v is not None}
    copies = params.get("n", 1)
    if document.get("best_of") not in (None, copies):
        raise InvalidRequest(
            "'best_of' must equal 'n': answers that nobody gets would have to be paid for",
            "best_of",
            "unsupported",
        )
    if copies * len(prompt.items) > checks.MAX_CHOICES:
        raise InvalidRequest(
            f"'n' times the prompts must be at most {checks.MAX_CHOICES} answers", "n"
        )
    required = must_honor(params)
    stop = params.get("stop") or []
    request = ChatRequest(
        models=models_of(document),
        messages=_messages(prompt),
        params=params,
        required=frozenset(required | _native_required(document, prompt)),
        prompt_bytes=len(body) + prompt.frame_bytes,
        content_bytes=prompt.content_bytes + utf8_bytes(document.get("suffix") or ""),
        max_tokens=params.get("max_tokens"),
        n=copies * len(prompt.items),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        operation="completions",
        inputs=prompt.items,
        native=Native(WIRE, document),
        provider=preferences_of(document.get("provider") or {}),
    )
    return Decoded(request, bool(document.get("stream")))


def _messages(prompt: Inputs) -> tuple[dict[str, Any], ...]:
    """Say the same for upstreams that know only messages, where it can be said."""
    if prompt.tokens or len(prompt.items) > 1:
        return ()
    return ({"role": "user", "content": prompt.items[0]},)


def _native_required(document: Mapping[str, Any], prompt: Inputs) -> set[str]:
    required = set()
    if prompt.tokens or len(prompt.items) > 1:
        required.add("completions.prompt")
    if document.get("suffix"):
        required.add("completions.suffix")
    if document.get("echo"):
        required.add("completions.echo")
    if document.get("logprobs") is not None:
        required.add("completions.logprobs")
    return required


def encode_request(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body for an upstream that only continues prompts; see chat's ``encode_request``.

    Raises:
        Unsupported: a conversation was asked for, and there is no template here to write it
            as one prompt.
    """
    native = request.native
    if native is not None and native.wire == WIRE:
        body = {
            name: value
            for name, value in native.body.items()
            if value is not None and (name in request.params or name in _OWN)
        }
    else:
        body = {k: v for k, v in request.params.items() if k in UPSTREAM_FIELDS}
        if body.pop("logprobs", None):
            body["logprobs"] = body.get("top_logprobs", 0)
        body.pop("top_logprobs", None)
        body["prompt"] = _prompt(request)
    for name in _LIMITS:
        body.pop(name, None)
    if request.output_bound is not None:
        body["max_tokens"] = request.output_bound
    body["model"] = model
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    vendor_options.add(body, request, options_key)
    return body


def _prompt(request: ChatRequest) -> Any:
    if request.operation == "completions" and request.inputs:
        return request.inputs[0] if len(request.inputs) == 1 else list(request.inputs)
    messages = list(request.messages)
    lead = [_text(messages.pop(0))] if messages and _is_lead(messages[0]) else []
    if len(messages) != 1 or messages[0].get("role") != "user":
        raise Unsupported(
            "this endpoint continues one prompt and knows no conversation: send one user message "
            "(a system message may stand before it)"
        )
    return "\n\n".join([*lead, _text(messages[0])])


def _is_lead(message: Mapping[str, Any]) -> bool:
    return message.get("role") in ("system", "developer")


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    return content if isinstance(content, str) else ""


def _part(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise Unsupported("this endpoint takes text only: leave out all other parts of content")
    return str(part.get("text") or "")
