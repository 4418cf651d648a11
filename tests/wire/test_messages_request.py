"""A Messages body is understood whole or refused by name, and goes on to either wire."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from backends.errors import RequestRejected
from backends.types import ChatRequest, Native
from backends.wire.checks import InvalidRequest
from backends.wire.messages_blocks import wrap
from backends.wire.messages_request import decode_count, decode_request, encode_request
from backends.wire.messages_upstream import MESSAGES_FIELDS

USER = {"role": "user", "content": "hi"}
BASE: dict[str, Any] = {"model": "acme/chat", "max_tokens": 8000, "messages": [USER]}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}}
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
ANTHROPIC = "anthropic-claude-v1"


def decode(**fields: Any) -> ChatRequest:
    """Decode the smallest good body with these fields."""
    return decode_request(json.dumps(BASE | fields).encode()).request


def refused(**fields: Any) -> InvalidRequest:
    """Return why the smallest good body with these fields is refused."""
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)
    return caught.value


def read(*content: Any, role: str = "user") -> list[dict[str, Any]]:
    """Return the canonical messages of one message with these blocks."""
    return list(decode(messages=[{"role": role, "content": list(content)}]).messages)


def encode(*messages: Any, native: bool = False, **params: Any) -> dict[str, Any]:
    """Return the upstream's body for a canonical request; ``stop`` stands where it belongs."""
    request = decode()
    request = msgspec.structs.replace(
        request,
        messages=messages or (USER,),
        params=params,
        stop=tuple(params.get("stop", ())),
        output_bound=request.max_tokens,
        native=request.native if native else None,
    )
    return encode_request(request, model="up")


def same_wire(**fields: Any) -> dict[str, Any]:
    """Return the upstream's body for a client's own document, where nothing is dropped."""
    request = decode(**fields)
    request = msgspec.structs.replace(request, output_bound=request.max_tokens)
    body = encode_request(request, model=fields.get("model", BASE["model"]))
    assert body.pop("stream") is True
    return body


def test_the_smallest_body_asks_one_model_for_one_answer() -> None:
    """Everything else has a meaning when absent."""
    body = json.dumps(BASE).encode()
    decoded = decode_request(body)
    assert not decoded.stream
    assert decoded.request == ChatRequest(
        models=("acme/chat",),
        messages=(USER,),
        params={"max_tokens": 8000},
        required=frozenset({"max_tokens"}),
        prompt_bytes=len(body),
        content_bytes=2,
        max_tokens=8000,
        native=Native("messages", BASE),
    )


CANONICAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0.5, "top_p": 0.9, "top_k": 5},) * 2,
    ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
    ({"tools": [TOOL]}, {"tools": [{"type": "function", "function": FUNCTION}]}),
    (
        {"tools": [{**TOOL, "type": "custom", "strict": True, "new": 1}]},
        {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]},
    ),
    (
        {"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}]},
        {"tools": [{"type": "function", "function": FUNCTION,
                    "cache_control": {"type": "ephemeral"}}]},
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "auto"}},
        {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto"},
    ),
    ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
    (
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
        {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "none"},
    ),
    ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
    (
        {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
        {"tool_choice": {"type": "function", "function": {"name": "f"}},
         "parallel_tool_calls": False},
    ),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"reasoning": {"max_tokens": 2000}},
    ),
    ({"thinking": {"type": "adaptive"}}, {"reasoning": {"enabled": True}}),
    ({"thinking": {"type": "disabled"}}, {"reasoning": {"enabled": False}}),
    ({"output_config": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {
            "name": "response", "schema": {"type": "object"}, "strict": True}}},
    ),
    (
        {"output_format": {"type": "json_schema", "schema": {}}},
        {"response_format": {"type": "json_schema", "json_schema": {
            "name": "response", "schema": {}, "strict": True}}},
    ),
    ({"cache_control": {"type": "ephemeral"}},) * 2,
    ({"service_tier": "auto", "metadata": {"user_id": "u"}, "user": "u", "trace": {}}, {}),
    ({"tools": [], "stop_sequences": [], "plugins": [], "mcp_servers": [], "system": ""}, {}),
    ({"speed": "standard", "temperature": None, "container": None}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "params"), CANONICAL, ids=[str(n) for n in range(20)])
def test_a_field_has_its_canonical_name(given: dict[str, Any], params: dict[str, Any]) -> None:
    """So that every other wire can honor it; what means the default counts as absent."""
    request = decode(**given)
    assert request.params == {"max_tokens": 8000, **params}
    loose = {"tool_choice"} if params.get("tool_choice") == "auto" else set()
    if params.get("reasoning") == {"enabled": False}:
        loose = {"reasoning"}
    assert request.required == {"max_tokens", *params} - loose
    assert request.required <= MESSAGES_FIELDS


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"thinking": {"type": "between_tools"}}, "messages.thinking"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "messages.thinking"),
        (
            {
                "thinking": {"type": "enabled", "budget_tokens": 2000},
                "output_config": {"effort": "low"},
            },
            "messages.output_config",
        ),
        ({"service_tier": "standard_only"}, "messages.service_tier"),
        ({"stop_sequences": list("abcde")}, "messages.stop_sequences"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "messages.tools"),
    ],
)
def test_what_only_this_wire_can_honor_is_required_by_its_own_name(
    given: dict[str, Any], name: str
) -> None:
    """Endpoints of other wires are left out; the same wire gets it unchanged."""
    request = decode(**given)
    assert name in request.required
    assert request.required <= MESSAGES_FIELDS
    assert same_wire(**given) == BASE | given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"frobnicate": 1}, "unknown field 'frobnicate'"),
        ({"max_token": 1}, "did you mean 'max_tokens'"),
        ({"max_tokens": None}, "'max_tokens' is required"),
        ({"max_tokens": 0}, "'max_tokens' must be"),
        ({"messages": []}, "'messages' is required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "x"}]}, "'messages' must hold"),
        ({"system": 5}, "'system'"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"temperature": 1.5}, "'temperature'"),
        ({"top_k": -1}, "'top_k'"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 8000}}, "less than 'max_tokens'"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"output_config": {"effort": "none"}}, "output_config.effort"),
        ({"output_config": {"new": 1}}, "output_config.new"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "server tools are not"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"mcp_servers": [{}]}, "server tools are not"),
        ({"container": "c"}, "containers are not offered"),
        ({"context_management": {}}, "'context_management'"),
        ({"inference_geo": "us"}, "'inference_geo'"),
        ({"speed": "fast"}, "'speed'"),
        ({"session_id": "s"}, "'session_id'"),
        ({"plugins": [{"id": "web"}]}, "'plugins'"),
        ({"fallbacks": [{"model": "a"}], "models": ["b"]}, "not both"),
        ({"fallbacks": [{"model": "a"}] * 4}, "at most 3"),
        ({"fallbacks": [{"model": "a", "x": 1}]}, "fallbacks[0].x"),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "cache_control.ttl"),
    ],
)
def test_what_is_wrong_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    """Where it is, and what to write instead."""
    assert words in refused(**given).message


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "file stores"),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "file stores"),
        ({"type": "server_tool_use", "id": "s"}, "'server_tool_use' are not offered"),
        ({"type": "text", "text": 5}, "content[0].text"),
        ({"type": "tool_result"}, "content[0].tool_use_id"),
        ({"type": "text", "text": "a", "cache_control": {"ttl": "1h"}}, "cache_control.ttl"),
        ({"text": "a"}, "content[0].type"),
    ],
)
def test_a_wrong_block_is_refused_by_its_path(block: dict[str, Any], words: str) -> None:
    """Blocks of tools that run at the server, of file stores, and those that are none."""
    assert words in refused(messages=[{"role": "user", "content": [block]}]).message


def test_models_may_be_listed_in_openrouters_two_ways() -> None:
    """``models``, or ``fallbacks`` after ``model``."""
    assert decode(models=["b", "c"]).models == ("acme/chat", "b", "c")
    assert decode(fallbacks=[{"model": "b"}]).models == ("acme/chat", "b")
    preferences = decode(provider={"require_parameters": False}).provider
    assert preferences.require_parameters is False


def test_blocks_of_a_user_become_parts_and_results_become_messages() -> None:
    """Results of tools come first, each a message; images inside them, errors, breakpoints."""
    cache = {"cache_control": {"type": "ephemeral"}}
    found = read(
        {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
        {
            "type": "tool_result",
            "tool_use_id": "t2",
            "is_error": True,
            "content": [{"type": "text", "text": "no"}, {"type": "image", "source": PNG}],
            **cache,
        },
        {"type": "tool_result", "tool_use_id": "t3"},
        {"type": "text", "text": "So?", **cache},
        {"type": "image", "source": {"type": "url", "url": "https://e.com/a.png"}},
    )
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert found == [
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
        {
            "role": "tool",
            "tool_call_id": "t2",
            "content": [{"type": "text", "text": "no"}, {**image, **cache}],
            "is_error": True,
        },
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "So?", **cache},
                {"type": "image_url", "image_url": {"url": "https://e.com/a.png"}},
            ],
        },
    ]


def test_documents_become_files_or_their_text() -> None:
    """PDFs by data or address; plain text as text, with title and context."""
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
    plain = {"type": "text", "media_type": "text/plain", "data": "body"}
    [message] = read(
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": {"type": "url", "url": "https://e.com/b.pdf"}},
        {"type": "document", "source": plain, "title": "T", "context": "C"},
        {"type": "document", "source": {"type": "content", "content": "inline"}},
    )
    assert message["content"] == [
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
        },
        {"type": "file", "file": {"filename": "document.pdf", "file_url": "https://e.com/b.pdf"}},
        {"type": "text", "text": "T\nC\nbody"},
        {"type": "text", "text": "inline"},
    ]


def test_citations_and_search_results_ask_for_this_wire() -> None:
    """No other one cites its prompt."""
    plain = {"type": "text", "media_type": "text/plain", "data": "body"}
    document = {"type": "document", "source": plain, "citations": {"enabled": True}}
    result = {
        "type": "search_result",
        "title": "T",
        "source": "https://e.com",
        "content": [{"type": "text", "text": "found"}],
    }
    request = decode(messages=[{"role": "user", "content": [document, result]}])
    assert request.required == {"max_tokens", "messages.citations", "messages.search_result"}
    [message] = request.messages
    assert message["content"][1] == {"type": "text", "text": "T\nhttps://e.com\nfound"}


def test_an_assistants_turn_keeps_its_reasoning_and_calls() -> None:
    """Signatures and encrypted parts as details, texts joined, arguments as text."""
    foreign = {"type": "reasoning.encrypted", "data": "x", "format": "google-gemini-v1", "index": 7}
    [message] = read(
        {"type": "thinking", "thinking": "Let me see.", "signature": "sig"},
        {"type": "thinking", "thinking": " Unsigned.", "signature": ""},
        {"type": "redacted_thinking", "data": "enc"},
        {"type": "redacted_thinking", "data": wrap(foreign)},
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "sunny.", "citations": []},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "ü"}},
        role="assistant",
    )
    assert message == {
        "role": "assistant",
        "content": "It is sunny.",
        "reasoning": "Let me see. Unsigned.",
        "reasoning_details": [
            {
                "type": "reasoning.text",
                "text": "Let me see.",
                "signature": "sig",
                "format": ANTHROPIC,
                "index": 0,
            },
            {"type": "reasoning.encrypted", "data": "enc", "format": ANTHROPIC, "index": 1},
            foreign,
        ],
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":"ü"}'}}
        ],
    }


def test_system_prompts_are_messages_where_they_stand() -> None:
    """The body's own comes first; others stay amid the conversation."""
    blocks = [{"type": "text", "text": "Be terse.", "cache_control": {"type": "ephemeral"}}]
    request = decode(system=blocks, messages=[USER, {"role": "system", "content": "In French."}])
    assert request.messages == (
        {"role": "system", "content": blocks},
        USER,
        {"role": "system", "content": "In French."},
    )
    assert request.content_bytes == len("Be terse.hiIn French.")


def test_the_prompts_bound_is_the_bodys_bytes_without_images() -> None:
    """What is added for tools is the planner's to say, for every dialect."""
    body = {**BASE, "tools": [TOOL]}
    assert decode(tools=[TOOL]).prompt_bytes == len(json.dumps(body))
    image = {"type": "image", "source": {**PNG, "data": "A" * 10_000}}
    request = decode(messages=[{"role": "user", "content": [image]}])
    assert (request.images, request.prompt_bytes < 300) == (1, True)


def test_calls_and_tools_are_part_of_what_is_counted() -> None:
    """By name and input, and as the JSON that every wire shares."""
    call = {"type": "tool_use", "id": "t", "name": "look", "input": {"a": 1}}
    request = decode(tools=[TOOL], messages=[USER, {"role": "assistant", "content": [call]}])
    assert request.content_bytes == len("hi") + len("look") + len('{"a":1}')
    assert request.tools_bytes == len(msgspec.json.encode(request.params["tools"]))
    assert decode().tools_bytes == 0


def test_a_count_needs_no_limit() -> None:
    """The route that counts is asked without ``max_tokens``."""
    body = {name: value for name, value in BASE.items() if name != "max_tokens"}
    assert decode_count(json.dumps(body).encode()).content_bytes == 2


WIRE: list[dict[str, Any]] = [
    {"system": "s"},
    {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
    {"tools": [{**TOOL, "input_examples": [{}]}], "tool_choice": {"type": "any"}},
    {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "new": 1}]}]},
    {"messages": [USER, {"role": "system", "content": "later"}]},
    {"stop_sequences": ["a"], "temperature": 0, "top_k": 5, "top_p": 0.1},
    {"cache_control": {"type": "ephemeral"}},
]


@pytest.mark.parametrize("given", WIRE, ids=[str(n) for n in range(len(WIRE))])
def test_the_same_wire_loses_nothing(given: dict[str, Any]) -> None:
    """A client's document reaches an upstream of its wire as it is."""
    assert same_wire(**given) == BASE | given


def test_the_same_wire_gets_nothing_that_is_the_gateways() -> None:
    """Routing and identity stay here; a format takes the name that it has today."""
    body = same_wire(
        models=["b"],
        provider={},
        plugins=[],
        user="u",
        trace={"a": 1},
        metadata={"user_id": "u"},
        service_tier="auto",
        tools=[],
        output_format={"type": "json_schema", "schema": {}},
    )
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": {}}}}
    assert body == BASE | wanted


def test_the_same_wire_loses_a_field_that_its_endpoint_lacks() -> None:
    """Where the caller allowed it: its native name goes, too."""
    request = decode(
        stop_sequences=["a"],
        thinking={"type": "adaptive"},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {}}},
        tools=[TOOL],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )
    kept = {k: request.params[k] for k in ("max_tokens", "tools", "tool_choice")}
    body = encode_request(msgspec.structs.replace(request, params=kept), model="up")
    assert body == {
        **BASE,
        "model": "up",
        "stream": True,
        "tools": [TOOL],
        "tool_choice": {"type": "auto"},
    }


def test_reasoning_that_anthropic_did_not_sign_is_not_sent_to_it() -> None:
    """It came from another wire through us, and would be refused."""
    own = [
        {"type": "thinking", "thinking": "a", "signature": "s"},
        {"type": "redacted_thinking", "data": "enc"},
        {"type": "text", "text": "b"},
    ]
    foreign = [
        {"type": "thinking", "thinking": "c", "signature": ""},
        {"type": "redacted_thinking", "data": wrap({"data": "x"})},
    ]
    turn = {"role": "assistant", "content": [*foreign, *own]}
    body = same_wire(messages=[USER, turn, USER])
    assert body["messages"][1] == {"role": "assistant", "content": own}


def test_a_conversation_of_another_dialect_is_translated() -> None:
    """System at the head, turns that alternate, reasoning before text before calls."""
    call = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": ""}}
    details = [
        {"type": "reasoning.text", "text": "Let ", "format": ANTHROPIC, "index": 0},
        {"type": "reasoning.text", "text": "me", "format": ANTHROPIC, "index": 0},
        {"type": "reasoning.text", "signature": "sig", "format": ANTHROPIC, "index": 0},
        {"type": "reasoning.encrypted", "data": "enc", "format": ANTHROPIC, "index": 1},
        {"type": "reasoning.encrypted", "data": "no", "format": "openai-responses-v1"},
    ]
    body = encode(
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [
            {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": ""},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "image_url", "image_url": {"url": "https://e.com/a.png"}},
        ]},
        {"role": "developer", "content": "d"},
        {"role": "assistant", "content": "c", "reasoning": "Let me", "reasoning_details": details,
         "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "r", "is_error": True},
        {"role": "user", "content": "e"},
    )  # fmt: skip
    assert body["system"] == [{"type": "text", "text": "s"}, {"type": "text", "text": "d"}]
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
                {"type": "image", "source": PNG},
                {"type": "image", "source": {"type": "url", "url": "https://e.com/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Let me", "signature": "sig"},
                {"type": "redacted_thinking", "data": "enc"},
                {"type": "text", "text": "c"},
                {"type": "tool_use", "id": "functions_f_0", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "functions_f_0",
                    "content": "r",
                    "is_error": True,
                },
                {"type": "text", "text": "e"},
            ],
        },
    ]


def test_a_body_of_this_dialect_comes_back_from_its_canonical_form() -> None:
    """Reading and writing are each other's reverse, for all that is canonical."""
    text, cache = {"type": "text", "text": "a"}, {"cache_control": {"type": "ephemeral"}}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
    given = {
        "system": [{**text, **cache}],
        "messages": [
            {
                "role": "user",
                "content": [text, {"type": "document", "source": pdf, "title": "t"}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                    text,
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [text, {"type": "image", "source": PNG}],
                        **cache,
                    }
                ],
            },
        ],
        "tools": [{**TOOL, "strict": True, **cache}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"format": {"type": "json_schema", "schema": {}}},
        "stop_sequences": ["x"],
        "temperature": 1,
    }
    request = msgspec.structs.replace(decode(**given), native=None)
    body = encode_request(request, model=BASE["model"])
    assert body == BASE | given | {"stream": True}


THOUGHT: list[tuple[dict[str, Any], Any]] = [
    ({}, None),
    ({"reasoning": {}}, None),
    ({"reasoning": {"effort": "none"}}, {"type": "disabled"}),
    ({"reasoning": {"enabled": False}}, {"type": "disabled"}),
    ({"reasoning": {"enabled": True}}, {"type": "enabled", "budget_tokens": 4000}),
    ({"reasoning": {"effort": "max"}}, {"type": "enabled", "budget_tokens": 7600}),
    ({"reasoning": {"effort": "high"}}, {"type": "enabled", "budget_tokens": 6400}),
    ({"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 1600}),
    ({"reasoning_effort": "minimal"}, {"type": "enabled", "budget_tokens": 1024}),
    ({"reasoning": {"max_tokens": 3000}}, {"type": "enabled", "budget_tokens": 3000}),
    ({"reasoning": {"max_tokens": 10}}, {"type": "enabled", "budget_tokens": 1024}),
    (
        {"reasoning": {"effort": "medium", "exclude": True}},
        {"type": "enabled", "budget_tokens": 4000, "display": "omitted"},
    ),
]


@pytest.mark.parametrize(("params", "thinking"), THOUGHT, ids=[str(n) for n in range(12)])
def test_effort_becomes_a_share_of_the_limit(params: dict[str, Any], thinking: Any) -> None:
    """OpenRouter's ratios, from 1,024 to 128,000 tokens."""
    assert encode(**params).get("thinking") == thinking


@pytest.mark.parametrize(
    ("params", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"type": "tool", "name": "f"},
        ),
    ],
)
def test_tools_of_another_dialect_are_translated(params: dict[str, Any], choice: Any) -> None:
    """Functions with their schema, and how they may be called."""
    tools = [{"type": "function", "function": FUNCTION}]
    tools.append({"type": "function", "function": {"name": "g"}})
    body = encode(tools=tools, **params)
    assert body["tools"] == [
        TOOL,
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert body.get("tool_choice") == choice


FILES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
        {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
    ),
    (
        {"filename": "a.txt", "file_data": "data:text/plain;charset=utf-8;base64,R3LDvMOf"},
        {"type": "text", "media_type": "text/plain", "data": "Grüß"},
    ),
    (
        {"filename": "a", "file_data": "https://e.com/a"},
        {"type": "url", "url": "https://e.com/a"},
    ),
]


@pytest.mark.parametrize(("file", "source"), FILES, ids=["pdf", "text", "url"])
def test_a_file_becomes_a_document(file: dict[str, Any], source: dict[str, Any]) -> None:
    """By its data, or by an address that Anthropic fetches."""
    body = encode({"role": "user", "content": [{"type": "file", "file": file}]})
    assert body["messages"][0]["content"] == [
        {"type": "document", "source": source, "title": file["filename"]}
    ]


def user(**part: Any) -> dict[str, Any]:
    """Return a message of one part."""
    return {"role": "user", "content": [part]}


@pytest.mark.parametrize(
    ("message", "params", "words"),
    [
        (USER, {"temperature": 1.5}, "'temperature'"),
        (USER, {"reasoning": {"max_tokens": 8000}}, "does not fit"),
        (USER, {"response_format": {"type": "json_object"}}, "json_schema"),
        (USER, {"tools": [{"type": "web_search"}]}, "web_search"),
        (user(type="image_url", image_url={"url": "http://e.com"}), {}, "an image must be"),
        (user(type="image_url", image_url={"url": "data:,x"}), {}, "an image must be"),
        (user(type="file", file={"file_id": "f"}), {}, "a file must be"),
        (user(type="video_url", video_url={}), {}, "'video_url'"),
        (user(type="text", text="a", cache_control={"ttl": "1h"}), {}, "ttl"),
    ],
)
def test_what_this_wire_cannot_say_is_refused_before_it_is_asked(
    message: dict[str, Any], params: dict[str, Any], words: str
) -> None:
    """With words for the client."""
    with pytest.raises(RequestRejected) as caught:
        encode(message, **params)
    assert words in caught.value.message


def test_arguments_that_are_no_object_are_kept_in_one() -> None:
    """Anthropic takes nothing else: a call cut off by a limit must not end the conversation."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"cut'}}
    body = encode(USER, {"role": "assistant", "content": None, "tool_calls": [call]})
    [use] = body["messages"][1]["content"]
    assert use["input"] == {"arguments": '{"cut'}


def test_vendor_options_reach_only_the_endpoint_they_name() -> None:
    """``provider.options.<slug>`` is merged for that slug."""
    request = decode(provider={"options": {"acme": {"beta": 1}, "b": {"c": 2}}})
    body = encode_request(request, model="up", options_key="acme")
    assert (body["beta"], "c" in body) == (1, False)


@pytest.mark.parametrize("tools", [[], [TOOL]])
def test_to_call_none_of_the_given_tools_must_be_honored(tools: list[Any]) -> None:
    """Lost, it would mean that the model may call."""
    request = decode(tools=tools, tool_choice={"type": "none"})
    assert request.params.get("tool_choice") == ("none" if tools else None)
    assert ("tool_choice" in request.required) is bool(tools)
