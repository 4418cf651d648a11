"""Requests to Google's generateContent: the canonical form in, an upstream's body out.

Source: "GenerateContentRequest", ai.google.dev/api/generate-content, the same page of Vertex AI,
and "Thought signatures" (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.errors import Unsupported
from backends.types import ChatRequest
from backends.wire import vendor_options
from backends.wire.gemini_contents import encode_messages
from backends.wire.openai_request import CHAT_FIELDS

FIELDS: Final = CHAT_FIELDS - {
    "top_a",
    "min_p",
    "repetition_penalty",
    "logit_bias",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "parallel_tool_calls",
    "verbosity",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "cache_control",
    "service_tier",
}
"""What this wire can express of a request."""

_CONFIG: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_p": "topP",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "n": "candidateCount",
}
_BEFORE_3: Final = ("gemini-1", "gemini-2", "gemma")

_BUDGETS: Final[Mapping[str, int]] = {
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 24576,
    "max": 24576,
}
"""Tokens to think, for models before Gemini 3, as Google's own OpenAI route translates effort."""

_LEVELS: Final[Mapping[str, str]] = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
    "max": "XHIGH",
}
_MODES: Final[Mapping[str, str]] = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
_IMAGE: Final[Mapping[str, str]] = {"aspect_ratio": "aspectRatio", "image_size": "imageSize"}

_OPTIONS: Final = ("safetySettings", "labels", "generationConfig")
"""What callers may set through ``provider.options``; the rest would change what is paid for."""


def encode_request(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body for an upstream that speaks generateContent; its URL asks for the stream.

    Args:
        request: with ``params`` narrowed to what the endpoint honors, and ``output_bound``
            set if an output limit has to be sent.
        model: the upstream's model name; before Gemini 3 they think by budget, and neither
            need nor know signatures that stand for missing ones.
        options_key: the slug of ``provider.options`` meant for this endpoint.

    Raises:
        Unsupported: something in it cannot be said on this wire.
    """
    params = request.params
    old = any(name in model for name in _BEFORE_3)
    body = encode_messages(request.messages, signatures=not old)
    body.update(_tools(params))
    config = _config(request)
    if thinking := _thinking(params, by_budget=old):
        config["thinkingConfig"] = thinking
    if config:
        body["generationConfig"] = config
    vendor_options.add(body, request, options_key, only=_OPTIONS)
    return body


def _config(request: ChatRequest) -> dict[str, Any]:
    """Return ``generationConfig`` but for thinking."""
    params = request.params
    config = {native: params[name] for name, native in _CONFIG.items() if name in params}
    if params.get("top_k", 0) > 0:
        config["topK"] = params["top_k"]
    if request.output_bound is not None:
        config["maxOutputTokens"] = request.output_bound
    if "stop" in params:
        config["stopSequences"] = list(request.stop)
    if params.get("top_logprobs"):
        config["logprobs"] = params["top_logprobs"]
    config.update(_format(params.get("response_format") or {"type": "text"}))
    if modalities := params.get("modalities"):
        if "audio" in modalities:
            raise Unsupported("'modalities': this endpoint's audio cannot be passed on")
        config["responseModalities"] = [name.upper() for name in modalities]
    if image := params.get("image_config"):
        for name in image.keys() - _IMAGE.keys():
            raise Unsupported(f"'image_config.{name}' is not known to this endpoint")
        config["imageConfig"] = {_IMAGE[name]: value for name, value in image.items()}
    return config


def _format(wanted: Mapping[str, Any]) -> dict[str, Any]:
    match wanted.get("type"):
        case "text":
            return {}
        case "json_object":
            return {"responseMimeType": "application/json"}
        case "json_schema":
            schema = (wanted.get("json_schema") or {}).get("schema")
            form = {"responseMimeType": "application/json"}
            return form if schema is None else {**form, "responseJsonSchema": schema}
        case kind:
            raise Unsupported(f"'response_format.type': {kind!r} is unknown to this endpoint")


def _tools(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return declarations and how they are to be chosen."""
    declarations = []
    for tool in params.get("tools") or ():
        if tool.get("type") != "function":
            raise Unsupported(f"'tools': {tool.get('type')!r} is not offered, only 'function'")
        function = tool["function"]
        declaration = {"name": function["name"]}
        if function.get("description"):
            declaration["description"] = function["description"]
        if function.get("parameters"):
            declaration["parametersJsonSchema"] = function["parameters"]
        declarations.append(declaration)
    body: dict[str, Any] = {"tools": [{"functionDeclarations": declarations}]}
    choice = params.get("tool_choice")
    if not declarations:
        return {}
    if isinstance(choice, dict):
        function = choice.get("function") if choice["type"] == "function" else None
        if function is None:
            raise Unsupported("'tool_choice' must name a function or be a word")
        calling = {"mode": "ANY", "allowedFunctionNames": [function["name"]]}
    elif choice is None:
        return body
    elif choice in _MODES:
        calling = {"mode": _MODES[choice]}
    else:
        raise Unsupported(f"'tool_choice': {choice!r} is unknown; use {', '.join(_MODES)}")
    return {**body, "toolConfig": {"functionCallingConfig": calling}}


def _thinking(params: Mapping[str, Any], *, by_budget: bool) -> dict[str, Any]:
    """Return ``thinkingConfig``; where nothing is asked for, nothing is said."""
    reasoning = params.get("reasoning") or {}
    effort = reasoning.get("effort") or params.get("reasoning_effort")
    if not reasoning and effort is None:
        return {}
    if effort == "none" or reasoning.get("enabled") is False:
        return {"thinkingBudget": 0}  # a model that always thinks refuses it
    thinking: dict[str, Any] = {"includeThoughts": reasoning.get("exclude") is not True}
    if (budget := reasoning.get("max_tokens")) is not None:
        thinking["thinkingBudget"] = budget
    elif effort is not None:
        known: Mapping[str, Any] = _BUDGETS if by_budget else _LEVELS
        if effort not in known:
            raise Unsupported(f"'reasoning.effort' must be none or one of {', '.join(known)}")
        thinking["thinkingBudget" if by_budget else "thinkingLevel"] = known[effort]
    return thinking
