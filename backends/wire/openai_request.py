"""OpenAI Chat Completions requests: a client's body in, an upstream's body out.

Every known field is honored or refused by name (design decision 6). The known fields are
those of OpenRouter's chat route (its SDK, 2026-10) and three of vLLM's sampling extras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from backends.types import ChatRequest, OutputField, ProviderPreferences
from backends.wire import checks, shapes, vendor_options
from backends.wire.checks import InvalidRequest
from backends.wire.dialect import Decoded

SAMPLING: dict[str, Callable[[str, Any], Any]] = {
    "temperature": checks.number(0, 2),
    "top_p": checks.number(0, 1),
    "top_k": checks.integer(-1),
    "top_a": checks.number(0, 1),
    "min_p": checks.number(0, 1),
    "frequency_penalty": checks.number(-2, 2),
    "presence_penalty": checks.number(-2, 2),
    "repetition_penalty": checks.number(0, 2),
    "logit_bias": checks.biases,
    "logprobs": checks.boolean,
    "top_logprobs": checks.integer(0, 20),
    "seed": checks.integer(-(2**63), 2**63 - 1),
    "stop": checks.stop_texts,
    "n": checks.integer(1, 128),
    "min_tokens": checks.integer(0),
    "ignore_eos": checks.boolean,
    "stop_token_ids": checks.list_of(checks.integer(0)),
    "max_tokens": checks.integer(1),
    "max_completion_tokens": checks.integer(1),
}
_FEATURES: dict[str, Callable[[str, Any], Any]] = {
    "response_format": shapes.response_format,
    "tools": shapes.tools,
    "tool_choice": shapes.tool_choice,
    "parallel_tool_calls": checks.boolean,
    "reasoning": shapes.REASONING,
    "reasoning_effort": shapes.EFFORT,
    "verbosity": checks.text,
    "modalities": checks.list_of(checks.one_of("text", "image", "audio")),
    "image_config": checks.mapping,
    "prediction": checks.mapping,
    "prompt_cache_key": checks.text,
    "prompt_cache_options": checks.mapping,
    "cache_control": checks.cache_control,
    "service_tier": checks.text,
}
_TO_UPSTREAM = SAMPLING | _FEATURES
CHAT_FIELDS = frozenset({*_TO_UPSTREAM, "image_url", "input_audio", "video_url", "file"})
"""Every field and part of this dialect that an endpoint can honor or lack."""

_OUTPUT_FIELDS: tuple[OutputField, ...] = ("max_completion_tokens", "max_tokens")

NOT_SENT: dict[str, Callable[[str, Any], Any]] = {
    "stream": checks.boolean,
    "stream_options": checks.mapping,
    "usage": checks.usage_options,
    "route": checks.text,
    "user": checks.text,
    "metadata": checks.mapping,
    "trace": checks.mapping,
    "transforms": checks.empty("prompts are never rewritten here"),
    "plugins": checks.empty("plugins are not offered here"),
    "model": checks.model_name,
    "models": checks.model_names,
    "messages": shapes.messages,
    "provider": checks.mapping,
}
"""Accepted, and by design kept from the upstream (or sent in another form)."""

_KNOWN = _TO_UPSTREAM | NOT_SENT

_LATER = {
    "session_id": "sticky sessions are not offered yet",
    "debug": "debug output is not offered",
    "stop_server_tools_when": "server tools are not offered",
    "deferred_tools": "server tools are not offered",
}

_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "temperature": (1,),
    "top_p": (1,),
    "top_k": (0, -1),
    "top_a": (0,),
    "min_p": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
    "n": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True,),
    "reasoning": ({},),
    "verbosity": ("medium",),
    "modalities": (["text"], []),
    "service_tier": ("auto", "default"),
}
"""A field with one of these values counts as absent when endpoints are chosen."""


def decode_request(body: bytes) -> Decoded:
    """Read and check one chat request.

    Raises:
        InvalidRequest: what is wrong, where, and what to write instead.
    """
    document = parse(body)
    check_fields(document, _KNOWN)
    if not document.get("messages"):
        raise InvalidRequest("'messages' is required: a list with at least one message", "messages")
    messages = tuple(_said(message) for message in document["messages"])
    params = {k: v for k, v in document.items() if k in _TO_UPSTREAM and v is not None}
    if "tools" in params:
        params["tools"] = [_tool(tool) for tool in params["tools"]]
    leave_out_tools(params)
    content = checks.Content()
    for message in messages:
        content.count(message)
    required = must_honor(params) | content.required
    max_tokens, output_field = _output_limit(params)
    stop = params.get("stop") or []
    request = ChatRequest(
        models=models_of(document),
        messages=messages,
        params=params,
        required=frozenset(required),
        prompt_bytes=max(len(body) - content.image_bytes, 0),
        content_bytes=content.text_bytes,
        tools_bytes=checks.json_bytes(params["tools"]) if params.get("tools") else 0,
        images=content.images,
        max_tokens=max_tokens,
        output_field=output_field,
        n=params.get("n", 1),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        provider=preferences_of(document.get("provider") or {}),
    )
    return Decoded(request, bool(document.get("stream")))


def encode_request(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body for an upstream that speaks OpenAI chat: streamed, with usage.

    Args:
        request: with ``params`` narrowed to what the endpoint honors, and ``output_bound``
            set if an output limit has to be sent.
        model: the upstream's model name.
        options_key: the slug of ``provider.options`` meant for this endpoint.
    """
    body: dict[str, Any] = {"model": model, "messages": request.messages}
    body.update((k, v) for k, v in request.params.items() if k not in _OUTPUT_FIELDS)
    if request.output_bound is not None:
        body[request.output_field] = request.output_bound
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    vendor_options.add(body, request, options_key)
    return body


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool with its type, which Mistral's clients leave out of functions."""
    return {**tool, "type": "function"} if tool.get("type") is None else tool


def _said(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message; no parts beside calls are said as null, which every upstream takes."""
    return {**message, "content": None} if message.get("content") == [] else message


def parse(body: bytes) -> dict[str, Any]:
    """Read a body that must be one JSON object, of bounded size and depth.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        document = msgspec.json.decode(body)
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deep; flatten it") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body must be one JSON object in UTF-8: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest('the body must be a JSON object, such as {"model": ...}')
    # Counting bytes is cheap and finds nearly every body that needs no walk.
    if body.count(b"[") + body.count(b"{") > checks.MAX_DEPTH or (
        body.count(b",") >= checks.MAX_NODES
    ):
        checks.nesting(document)
    return document


def check_fields(document: Mapping[str, Any], known: Mapping[str, checks.Check]) -> None:
    """Check every field that is given.

    Raises:
        InvalidRequest: one is unknown or wrong.
    """
    for name, value in document.items():
        if value is None:
            continue
        check = known.get(name)
        if check is None:
            raise _unknown(name, known)
        check(name, value)


def _unknown(name: str, known: Iterable[str]) -> InvalidRequest:
    if name in _LATER:
        return InvalidRequest(f"{name!r}: {_LATER[name]}; leave it out", name, "unsupported")
    hint = checks.closest(name, known)
    return InvalidRequest(
        f"unknown field {name!r}{hint}; vendor-specific fields go into provider.options.<slug>",
        name,
        "unknown_parameter",
    )


def must_honor(params: Mapping[str, Any]) -> set[str]:
    """Return the fields whose value does not count as absent: who serves them must honor them."""
    names = {name for name, value in params.items() if not is_default(name, value)}
    if "tools" in names and params.get("tool_choice") == "none":
        names.add("tool_choice")  # lost, it would be "auto": the model might call
    named = [choice] if isinstance(choice := params.get("tool_choice"), dict) else []
    if any(tool.get("type") == "custom" for tool in (*(params.get("tools") or ()), *named)):
        names.add(checks.CUSTOM_TOOLS)
    return names


def is_default(name: str, value: Any) -> bool:
    """Whether a field has a value that counts as absent."""
    defaults = _DEFAULTS.get(name, ())
    return any(value == default and type(value) is not bool for default in defaults) or any(
        value is default for default in defaults
    )


def leave_out_tools(params: dict[str, Any]) -> None:
    """Without tools, what says nothing of them counts as absent: many upstreams refuse it."""
    if not params.get("tools"):
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            if name in params and is_default(name, params[name]):
                del params[name]


def models_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the asked models in order, ``model`` before ``models``.

    Raises:
        InvalidRequest: there is none.
    """
    first = (document["model"],) if document.get("model") else ()
    names = tuple(dict.fromkeys((*first, *(document.get("models") or ()))))
    if not names:
        raise InvalidRequest("'model' is required; GET /v1/models lists the names", "model")
    return names


def _output_limit(params: Mapping[str, Any]) -> tuple[int | None, OutputField]:
    given = [(params[name], name) for name in _OUTPUT_FIELDS if name in params]
    if len({limit for limit, _ in given}) > 1:
        raise InvalidRequest(
            "'max_tokens' and 'max_completion_tokens' differ; send one of them", "max_tokens"
        )
    return given[0] if given else (None, "max_tokens")


def preferences_of(document: Mapping[str, Any]) -> ProviderPreferences:
    """Read the ``provider`` object.

    Raises:
        InvalidRequest: it has a key that is not offered.
    """
    for name in document:
        if name not in ("require_parameters", "options"):
            raise InvalidRequest(
                f"'provider.{name}' is not offered yet; known are 'require_parameters', 'options'",
                f"provider.{name}",
                "unsupported",
            )
    options = document.get("options")
    options = {} if options is None else options
    checks.mapping("provider.options", options)
    for slug, fields in options.items():
        checks.mapping(f"provider.options.{slug}", fields)
        vendor_options.check(f"provider.options.{slug}", fields, _KNOWN)
    strict = document.get("require_parameters")
    if strict is not None:
        checks.boolean("provider.require_parameters", strict)
    return ProviderPreferences(require_parameters=strict is not False, options=dict(options))
