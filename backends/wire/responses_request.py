"""OpenAI Responses requests: a client's body in, an upstream's body out.

Stateless, as OpenRouter's: nothing is stored, and what would need a store is refused by name. The
known fields are those of OpenAI's and OpenRouter's SDKs (2026-10).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.types import ChatRequest, Native
from backends.wire import checks, custom_tools, shapes, vendor_options
from backends.wire.checks import InvalidRequest
from backends.wire.details import OPENAI
from backends.wire.dialect import Decoded
from backends.wire.openai_request import (
    SAMPLING,
    check_fields,
    leave_out_tools,
    models_of,
    must_honor,
    parse,
    preferences_of,
)
from backends.wire.responses_items import OWN_FORMATS, is_ours, items_of, messages_of

_STORE = "nothing is stored here: send the whole conversation as 'input'"
_ENCRYPTED: Final = "reasoning.encrypted_content"
_LOGPROBS: Final = "message.output_text.logprobs"


def _refused(why: str, *accepted: Any) -> checks.Check:
    """Return a check of a field that is not offered; ``accepted`` says nothing of its own."""

    def check(path: str, value: Any) -> None:
        if not any(value is one or (value == one and value == []) for one in accepted):
            raise InvalidRequest(f"{path!r}: {why}; leave it out", path, "unsupported")

    return check


_SAME = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "stop")
_SAME_FIELDS: Final[Mapping[str, checks.Check]] = {
    **{name: SAMPLING[name] for name in _SAME},
    "top_logprobs": SAMPLING["top_logprobs"],
    "parallel_tool_calls": checks.boolean,
    "prompt_cache_key": checks.text,
    "prompt_cache_options": checks.mapping,
    "cache_control": checks.cache_control,
    "service_tier": checks.text,
    "modalities": checks.list_of(checks.one_of("text", "image", "audio")),
    "image_config": checks.mapping,
}
"""Fields that mean the same in the canonical shape."""

_OTHER_FIELDS: Final[Mapping[str, checks.Check]] = {
    "input": lambda path, value: None,  # its items are checked as they are read
    "instructions": checks.text,
    "tools": checks.list_of(checks.typed_object),
    "tool_choice": checks.text_or_object,
    "text": checks.mapping,
    "reasoning": checks.mapping,
    "max_output_tokens": SAMPLING["max_tokens"],
    "include": checks.list_of(checks.one_of(_ENCRYPTED, _LOGPROBS)),
}
_NATIVE_FIELDS: Final[Mapping[str, checks.Check]] = {
    "truncation": checks.one_of("auto", "disabled"),
    "prompt_cache_retention": checks.text,
}
"""Fields that only this wire can honor, ``responses.<name>`` in ``required``."""

_NOT_SENT: Final[Mapping[str, checks.Check]] = {
    "model": checks.model_name,
    "models": checks.model_names,
    "provider": checks.mapping,
    "stream": checks.boolean,
    "stream_options": checks.mapping,
    "route": checks.text,
    "user": checks.text,
    "safety_identifier": checks.text,
    "metadata": checks.mapping,
    "trace": checks.mapping,
    "plugins": checks.empty("plugins are not offered here"),
    "transforms": checks.empty("prompts are never rewritten here"),
    "store": _refused(_STORE, False),
    "previous_response_id": _refused(_STORE),
    "conversation": _refused(_STORE),
    "background": _refused("answers in the background are not offered", False),
    "prompt": _refused("prompt templates are not offered"),
    "context_management": _refused("prompts are never rewritten here", []),
    "max_tool_calls": _refused("tools of a vendor are not offered"),
    "moderation": _refused("moderation is not offered"),
    "session_id": _refused("sticky sessions are not offered yet"),
    "debug": _refused("debug output is not offered"),
    "stop_server_tools_when": _refused("server tools are not offered", []),
    "deferred_tools": _refused("server tools are not offered"),
}
"""Accepted or refused by name, and by design kept from the upstream."""

_KNOWN: Final = {**_SAME_FIELDS, **_OTHER_FIELDS, **_NATIVE_FIELDS, **_NOT_SENT}
RESPONSES_FIELDS: Final = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "temperature", "top_p", "logprobs"),
        *("top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls"),
        *("reasoning", "reasoning_effort", "verbosity", "prompt_cache_key", "service_tier"),
        *("image_url", "file", "responses.reasoning"),
        *(f"responses.{name}" for name in _NATIVE_FIELDS),
    }
)
"""What OpenAI's own upstream of this wire honors; another vendor's may honor less, or more."""

_TOOL: Final = checks.object_of(
    {"name": checks.text}, {**shapes.FUNCTION_OPTIONS, "cache_control": checks.mapping}
)
_FORMAT: Final = checks.object_of({}, shapes.SCHEMA_OPTIONS)
_NATIVE_REASONING: Final = {"context": ("auto",), "mode": ("standard",)}


def decode_request(body: bytes) -> Decoded:
    """Read and check one request.

    Raises:
        InvalidRequest: what is wrong, where, and what to write instead.
    """
    document = parse(body)
    check_fields(document, _KNOWN)
    if document.get("input") is None:
        raise InvalidRequest("'input' is required: a text or a list of items", "input")
    messages = messages_of(document["input"])
    if document.get("instructions"):
        messages.insert(0, {"role": "system", "content": document["instructions"]})
    params, native = _params(document)
    content = checks.Content()
    for message in messages:
        content.count(message)
    required = must_honor(params) | content.required | native
    stop = params.get("stop") or []
    request = ChatRequest(
        models=models_of(document),
        messages=tuple(messages),
        params=params,
        required=frozenset(required),
        prompt_bytes=max(len(body) - content.image_bytes, 0),
        content_bytes=content.text_bytes,
        tools_bytes=checks.json_bytes(params["tools"]) if params.get("tools") else 0,
        images=content.images,
        max_tokens=params.get("max_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        native=Native("responses", document),
        provider=preferences_of(document.get("provider") or {}),
    )
    return Decoded(request, bool(document.get("stream")))


def encode_request(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body for an upstream that speaks Responses: streamed, and not stored there.

    Encrypted reasoning is asked for where the caller asks for reasoning or hands some back: models
    that do not reason refuse the question. A caller of this wire says so in ``include``.

    Args:
        request: with ``params`` narrowed to what the endpoint honors, and ``output_bound``
            set if an output limit has to be sent.
        model: the upstream's model name.
        options_key: the slug of ``provider.options`` meant for this endpoint.

    Raises:
        Unsupported: a part cannot be said on this wire.
    """
    native = request.native
    if native is not None and native.wire == "responses":
        body = _from_native(native.body, request.params)
    else:
        body = _from_canonical(request)
    body["model"] = model
    if request.output_bound is not None:
        body["max_output_tokens"] = request.output_bound
    body["store"] = False
    body["stream"] = True
    vendor_options.add(body, request, options_key)
    return body


def _params(document: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return the canonical fields, and the names of what only this wire can honor."""
    given = {name: value for name, value in document.items() if value is not None}
    params = {name: given[name] for name in _SAME_FIELDS if name in given}
    native = {f"responses.{name}" for name in _NATIVE_FIELDS if name in given}
    if given.get("truncation") == "disabled":
        native.discard("responses.truncation")
    if "max_output_tokens" in given:
        params["max_tokens"] = given["max_output_tokens"]
    if given.get("top_logprobs") or _LOGPROBS in given.get("include", ()):
        params["logprobs"] = True
    if given.get("tools"):
        params["tools"] = [_tool(f"tools[{at}]", tool) for at, tool in enumerate(given["tools"])]
    if "tool_choice" in given:
        params |= _choice(given["tool_choice"], params.get("tools", []))
    params |= _text(given.get("text", {}))
    if "reasoning" in given:
        reasoning, only_here = _reasoning(given["reasoning"])
        if only_here:
            native.add("responses.reasoning")
        if reasoning:
            params["reasoning"] = reasoning
    leave_out_tools(params)
    return params, native


def _tool(path: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool["type"] == "custom":
        return custom_tools.nested(path, tool)
    if tool["type"] != "function":
        where = f"{path}.type"
        raise InvalidRequest(
            f"{where!r}: a tool of type {tool['type']!r} is not offered; 'function', 'custom' are",
            where,
            "unsupported",
        )
    checks.breakpoint_of(path, tool)
    _TOOL(path, tool)
    names = ("name", *shapes.FUNCTION_OPTIONS)
    function = {name: tool[name] for name in names if tool.get(name) is not None}
    made = {"type": "function", "function": function}
    return made | ({"cache_control": tool["cache_control"]} if tool.get("cache_control") else {})


def _choice(choice: Any, tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Return ``tool_choice`` in the canonical shape, and ``tools`` if it leaves out some."""
    if isinstance(choice, str):
        checks.one_of("none", "auto", "required")("tool_choice", choice)
        return {"tool_choice": choice}
    kind = choice.get("type")
    if kind in ("function", "custom"):
        checks.text("tool_choice.name", choice.get("name"))
        return {"tool_choice": {"type": kind, kind: {"name": choice["name"]}}}
    if kind == "allowed_tools":
        checks.one_of("auto", "required")("tool_choice.mode", choice.get("mode"))
        checks.list_of(checks.mapping)("tool_choice.tools", choice.get("tools"))
        allowed = [tool.get("name") for tool in choice["tools"]]
        left = [tool for tool in tools if tool[tool["type"]]["name"] in allowed]
        return {"tools": left, "tool_choice": choice["mode"]}
    where = "tool_choice.type"
    raise InvalidRequest(
        f"{where!r}: {kind!r} is not offered; 'function', 'custom' and 'allowed_tools' are",
        where,
        "unsupported",
    )


def _text(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``text`` stands for: the response's format, and how much is said."""
    for name in config:
        if name not in ("format", "verbosity"):
            where = f"text.{name}"
            message = f"unknown field {where!r}; 'format' and 'verbosity' are known"
            raise InvalidRequest(message, where, "unknown_parameter")
    params: dict[str, Any] = {}
    if config.get("verbosity") is not None:
        checks.text("text.verbosity", config["verbosity"])
        params["verbosity"] = config["verbosity"]
    format_ = config.get("format")
    if format_ is not None:
        checks.typed_object("text.format", format_)
        made = {"type": format_["type"]}
        if made["type"] == "json_schema":
            _FORMAT("text.format", format_)
            known = shapes.SCHEMA_OPTIONS
            schema = {name: format_[name] for name in known if format_.get(name) is not None}
            made["json_schema"] = schema
        params["response_format"] = made
    return params


def _reasoning(config: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the canonical ``reasoning``, and whether there is more that only this wire knows."""
    made: dict[str, Any] = {}
    only_here = False
    for name, value in config.items():
        path = f"reasoning.{name}"
        if value is None:
            continue
        if name in _NATIVE_REASONING:
            only_here = only_here or value not in _NATIVE_REASONING[name]
        elif name in ("summary", "generate_summary"):
            checks.text(path, value)
            made["summary"] = value
        elif name == "effort":
            shapes.EFFORT(path, value)
            made["effort"] = value
        elif name in ("enabled", "exclude"):
            checks.boolean(path, value)
            made[name] = value
        elif name == "max_tokens":
            checks.integer(0)(path, value)
            made[name] = value
        else:
            message = f"unknown field {path!r}; 'effort' and 'summary' are known"
            raise InvalidRequest(message, path, "unknown_parameter")
    return made, only_here


def _from_native(document: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's own document without what is not for the upstream."""
    body = {k: v for k, v in document.items() if k not in _NOT_SENT and v is not None}
    for name in _SAME_FIELDS:
        if name in body and name not in params:
            del body[name]
    for name in ("tools", "tool_choice"):
        if name not in params:
            body.pop(name, None)
    if config := body.pop("reasoning", None):
        gone = ("effort", "enabled", "exclude", "max_tokens")
        kept = {k: v for k, v in config.items() if k not in gone and v is not None}
        if config := kept | _effort(params):
            body["reasoning"] = config
    if text := body.get("text"):
        pairs = {"format": "response_format", "verbosity": "verbosity"}
        body["text"] = {k: v for k, v in text.items() if pairs[k] in params}
        if not body["text"]:
            del body["text"]
    body.pop("max_output_tokens", None)  # the bound of this attempt is sent instead
    if isinstance(body["input"], list):
        body["input"] = [made for item in body["input"] if (made := _item(item)) is not None]
    return body


def _item(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an item without what our own answers added; None if only others understand it."""
    made = {name: value for name, value in item.items() if value is not None or name == "content"}
    if item.get("type") == "reasoning":
        if (made.pop("format", None) or OPENAI) not in OWN_FORMATS:
            return None
        for name in ("signature", "status"):  # the second is told in answers, and never taken
            made.pop(name, None)
        if not made.get("encrypted_content") and not made.get("content"):
            return None  # an upstream would look its id up, and nothing is stored there
    if is_ours(made.get("id")):
        del made["id"]
        made.pop("status", None)
    return made


def _from_canonical(request: ChatRequest) -> dict[str, Any]:
    params = request.params
    items = items_of(request.messages)
    body: dict[str, Any] = {"input": items}
    for name in _SAME_FIELDS:
        if name in params:
            body[name] = params[name]
    reasoning = _effort(params)
    if summary := params.get("reasoning", {}).get("summary"):
        reasoning["summary"] = summary
    if reasoning:
        body["reasoning"] = reasoning
    if reasoning or any(item["type"] == "reasoning" for item in items):
        body["include"] = [_ENCRYPTED]
    if params.get("logprobs"):
        body.setdefault("include", []).append(_LOGPROBS)
    if params.get("tools"):
        body["tools"] = [_flat(tool) for tool in params["tools"]]
    if "tool_choice" in params:
        choice = params["tool_choice"]
        named = choice.get(choice["type"]) if isinstance(choice, dict) else None
        if isinstance(named, dict) and "name" in named:
            choice = {"type": choice["type"], "name": named["name"]}
        body["tool_choice"] = choice
    text: dict[str, Any] = {}
    if format_ := params.get("response_format"):
        text["format"] = {"type": format_["type"], **(format_.get("json_schema") or {})}
    if "verbosity" in params:
        text["verbosity"] = params["verbosity"]
    return body | ({"text": text} if text else {})


def _effort(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return how hard to think. This wire knows words only: a budget of tokens is ``medium``."""
    reasoning = params.get("reasoning", {})
    if effort := reasoning.get("effort") or params.get("reasoning_effort"):
        return {"effort": effort}
    if reasoning.get("enabled") is False:
        return {"effort": "none"}
    return {"effort": "medium"} if reasoning.get("enabled") or reasoning.get("max_tokens") else {}


def _flat(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as this wire has it; other tools than functions as they are."""
    function = tool.get("function")
    if tool.get("type") == "custom":
        return custom_tools.flat(tool)
    if tool.get("type") != "function" or not isinstance(function, dict):
        return dict(tool)
    known = ("name", "description", "parameters", "strict")
    flat = {name: function[name] for name in known if name in function}
    return {"type": "function", "parameters": None, "strict": False} | flat
