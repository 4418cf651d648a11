"""OpenAI's legacy Completions requests: an upstream's body out.

Source: OpenAI's API reference, "Create completion"; vLLM's sampling extras beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.errors import RequestRejected
from backends.types import ChatRequest

WIRE: Final = "completions"

UPSTREAM_FIELDS: Final = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"}
    | {"repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "seed", "stop", "n"}
    | {"min_tokens", "ignore_eos", "stop_token_ids", "max_tokens", "max_completion_tokens"}
)
"""What of a chat request an upstream of this wire can honor."""

_OWN: Final = ("prompt", "suffix", "echo", "logprobs", "best_of")
_LIMITS: Final = ("max_tokens", "max_completion_tokens")


def encode_request(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body for an upstream that only continues prompts; see chat's ``encode_request``.

    Raises:
        RequestRejected: a conversation was asked for, and there is no template here to write it
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
    if options_key:
        body.update(request.provider.options.get(options_key, {}))
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    return body


def _prompt(request: ChatRequest) -> Any:
    if request.operation == "completions" and request.inputs:
        return request.inputs[0] if len(request.inputs) == 1 else list(request.inputs)
    messages = list(request.messages)
    lead = [_text(messages.pop(0))] if messages and _is_lead(messages[0]) else []
    if len(messages) != 1 or messages[0].get("role") != "user":
        raise RequestRejected(
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
        raise RequestRejected("this endpoint takes text only: leave out all other parts of content")
    return str(part.get("text") or "")
