"""Requests that real clients sent come through our dialects with nothing lost.

Decoded and encoded again for an upstream of the same wire, a recorded request says what it said
before, but for what the gateway sets itself. A field that is refused by design is named.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import msgspec
import pytest

from backends.wire.checks import InvalidRequest
from tests.recordings.cases import ABSENT, Case, every, recorded

MODULES = {
    "chat": "backends.wire.openai_request",
    "completions": "backends.wire.completions_request",
    "responses": "backends.wire.responses_request",
    "messages": "backends.wire.messages_request",
}
"""Where ``decode_request`` and ``encode_request`` of each dialect are."""

OURS = {"model", "stream", "stream_options", "store"}
"""The gateway says itself which model, that it wants a stream with usage, and nothing stored."""

KEPT_BACK = {"user", "metadata", "trace", "usage"}
"""Accepted, and not for the upstream (design decision 6): of ``usage``, ``include``."""

DEFAULTS: dict[str, Any] = {
    "n": 1,
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "echo": False,
    "best_of": 1,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "include": [],
    "stop": [],
    "truncation": "disabled",
}
"""A field that says what would be so without it may be left out (design decision 6)."""

REFUSED: dict[str, set[str]] = {
    "chat": {
        "audio",
        "enable_thinking",
        "functions",
        "moderation",
        "random_seed",
        "reasoning_format",
        "safe_prompt",
        "search_settings",
        "thinking",
        "tools",
        "variables",
        "web_search_options",
    },
    "completions": {"inputs"},
    "responses": {"include", "moderation", "prompt", "provider", "tools"},
    "messages": {"mcp_servers", "tools"},
}
"""Fields refused by name, by design: of one vendor only, of server tools, of stored state.

``tools`` and ``include`` are refused for a server tool in them, ``provider`` for a preference
that is not offered.
"""

NOT_TAKEN = {
    "anthropic-messages/multimodal-input-stream--anthropic-file-lifecycle": "a stored file",
    "anthropic-messages/text-stream--anthropic-search-panel": "a server tool's block",
    "openai-chat/multimodal-input--completion-image-input": "an image_url that is no object",
    "writer/text-stream--writer-async-streaming-chat-tool-calls": "a tool message without an id",
}
"""Messages that name what is not offered, or that OpenAI's own reference does not allow."""


def bodies() -> list[Any]:
    """Return one case per recorded request in a client's dialect that its server accepted."""
    chosen = [
        pytest.param(case, id=case.name)
        for case in every()
        if case.wire in MODULES
        and not case.is_refusal
        and not case.out_of_scope
        and isinstance((case.request or {}).get("body"), dict)
    ]
    if not recorded():
        chosen.append(pytest.param(None, id="recordings", marks=pytest.mark.skip(ABSENT)))
    return chosen


def asked(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a client of ours would send: Vertex and Azure put the model into the URL."""
    plain: dict[str, Any] = without_nulls({"model": "m", **body})
    plain.pop("anthropic_version", None)
    if "output_format" in plain:
        plain["output_config"] = {"format": plain.pop("output_format")}
    return plain


def without_nulls(value: Any) -> Any:
    """Null says what leaving out says."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def again(wire: str, body: dict[str, Any]) -> dict[str, Any]:
    """Decode a client's body and encode it for an upstream of the same wire."""
    module = importlib.import_module(MODULES[wire])
    request = module.decode_request(json.dumps(body).encode()).request
    request = msgspec.structs.replace(request, output_bound=request.max_tokens)
    encoded: dict[str, Any] = module.encode_request(request, model=body["model"])
    said: dict[str, Any] = without_nulls(json.loads(msgspec.json.encode(encoded)))
    return said


def lost(body: dict[str, Any], encoded: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that were given and are not said the same way."""
    given = {name: value for name, value in body.items() if name not in OURS | KEPT_BACK}
    if "tools" in encoded and all("function" in tool for tool in given["tools"]):
        # Mistral's clients leave the type out, and write no content as an empty list.
        given["tools"] = [{"type": "function", **tool} for tool in given["tools"]]
        given["messages"] = [
            {k: v for k, v in message.items() if (k, v) != ("content", [])}
            for message in given["messages"]
        ]
    return {
        name: (value, encoded.get(name))
        for name, value in given.items()
        if encoded.get(name) != value
        and not (name not in encoded and name in DEFAULTS and DEFAULTS[name] == value)
    }


@pytest.mark.parametrize("case", bodies())
def test_a_recorded_request_comes_through_with_nothing_lost(case: Case) -> None:
    """What is neither ours to set nor refused by name reaches an upstream of the same wire."""
    assert case.request is not None
    body = asked(case.request["body"])
    try:
        encoded = again(case.wire, body)
    except InvalidRequest as refused:
        if not by_design(case, refused):
            raise
        return
    assert lost(body, encoded) == {}


def by_design(case: Case, refused: InvalidRequest) -> bool:
    """Say whether a refusal names a field that this dialect is meant to refuse."""
    field = (refused.param or "").split(".")[0].split("[")[0]
    if field == "messages":
        return case.name.startswith(tuple(NOT_TAKEN))
    return field in REFUSED[case.wire]
