"""Vendors are data: each row loads, is named once, and changes a request as it says."""

from __future__ import annotations

from typing import Any

import pytest

import backends
from backends.base import BackendConfig
from backends.errors import RequestRejected
from backends.openai import build
from backends.openai_like import fields_of
from backends.types import ProviderPreferences
from backends.vendors import Vendor, names, vendor
from backends.wire.openai_form import Form, shaped
from tests.contracts.backend_contract import everything, replace_request
from tests.upstream import Exchange, answer, serving

NAMED = [
    "openai", "mistral", "groq", "deepseek", "xai", "together", "fireworks", "cerebras",
    "perplexity", "moonshot", "alibaba", "zai", "novita", "nebius", "sambanova", "hyperbolic",
    "avian", "deepinfra", "cohere-compat", "github-models", "cloudflare", "databricks",
    "snowflake", "writer", "llama-cpp", "lm-studio", "ollama", "vercel", "hf-router",
    "hf-endpoints", "litellm", "portkey", "gpustack", "crusoe", "heroku", "tgi",
]  # fmt: skip


def body(form: Form, **changes: Any) -> dict[str, Any]:
    """Return what is sent to an upstream of this form."""
    return shaped(replace_request(**changes), form, model="m")


def talk(**fields: Any) -> tuple[dict[str, Any], ...]:
    """Return a conversation whose assistant said these fields, and called a tool."""
    call = {"id": "call_1234567890", "type": "function", "function": {"name": "f"}}
    return (
        {"role": "developer", "content": "be brief"},
        {"role": "assistant", "content": "hi", "tool_calls": [call], **fields},
        {"role": "tool", "tool_call_id": "call_1234567890", "content": "42"},
    )


@pytest.mark.parametrize("name", NAMED)
def test_a_vendor_is_known(name: str) -> None:
    """By its name however it is spelt; what it drops are fields that there are."""
    row = vendor(name.upper().replace("-", " _."))
    assert row == vendor(name)
    assert row.drop <= fields_of("chat") | fields_of("completions")
    assert row.base_url == "" or row.base_url.startswith(("https://", "http://localhost"))
    assert not row.base_url.endswith("/")


def test_no_two_vendors_share_a_name() -> None:
    """Nor does an alias stand for two."""
    spelt = [alias for name in names() for alias in (name, *vendor(name).aliases)]
    plain = [name.replace("-", "").replace(".", "") for name in spelt]
    assert len(plain) == len(set(plain))


def test_an_unknown_vendor_is_refused_with_the_nearest_name() -> None:
    """When the configuration is read."""
    config = BackendConfig("openai", "m", "https://a.example/v1", options={"vendor": "mistrall"})
    with pytest.raises(ValueError, match=r"'vendor': 'mistrall' is not known.*'mistral'"):
        backends.check(config)


def test_no_vendor_changes_nothing() -> None:
    """The address of an unknown server is asked in OpenRouter's words."""
    assert vendor("") == Vendor()
    wish = {"effort": "low"}
    sent = body(Form(), params={"reasoning": wish}, messages=talk(reasoning="hm"))
    assert sent["reasoning"] == wish
    assert tuple(sent["messages"]) == talk(reasoning="hm")


@pytest.mark.anyio
async def test_a_vendor_gives_the_address_and_what_it_lacks() -> None:
    """An address in the configuration always wins."""
    backend = build(BackendConfig("openai", "m", options={"vendor": "Groq"}))
    assert backend.config.base_url == "https://api.groq.com/openai/v1"
    assert not {"n", "logprobs"} & (backend.capabilities.fields or set())
    own = build(BackendConfig("openai", "m", "http://a.example/v1", options={"vendor": "groq"}))
    assert own.config.base_url == "http://a.example/v1"
    await backend.aclose()
    await own.aclose()


def test_the_output_limit_has_the_vendors_name() -> None:
    """The caller's name otherwise."""
    sent = body(Form(output_field="max_completion_tokens"))
    assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 64)
    assert body(Form())["max_tokens"] == 64
    assert "max_tokens" not in body(Form(output_field="max_tokens"), output_bound=None)


def test_fields_get_the_vendors_names_and_usage_is_not_asked_for_where_it_is_refused() -> None:
    """Mistral's seed, for one."""
    sent = body(vendor("mistral"), params={"seed": 7})
    assert sent["random_seed"] == 7
    assert not {"seed", "stream_options"} & set(sent)


@pytest.mark.parametrize(
    ("style", "wish", "said"),
    [
        ("effort", {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ("effort", {"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ("effort", {"reasoning": {"enabled": False}}, {"reasoning_effort": "none"}),
        ("effort", {"reasoning": {"enabled": True}}, {}),
        ("thinking", {"reasoning": {"enabled": True}}, {"thinking": {"type": "enabled"}}),
        ("thinking", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ("thinking", {}, {}),
        (
            "enable_thinking",
            {"reasoning": {"max_tokens": 10}},
            {"enable_thinking": True, "thinking_budget": 10},
        ),
        ("enable_thinking", {"reasoning": {"enabled": False}}, {"enable_thinking": False}),
    ],
)
def test_reasoning_is_steered_in_the_vendors_words(
    style: Any, wish: dict[str, Any], said: dict[str, Any]
) -> None:
    """Nothing of the caller's words is left beside them."""
    sent = body(Form(reasoning=style), params=wish)
    spoken = ("reasoning", "reasoning_effort", "thinking", "enable_thinking", "thinking_budget")
    assert {name: sent[name] for name in spoken if name in sent} == said


@pytest.mark.parametrize(
    ("wish", "thought"),
    [({"max_tokens": 10}, 10), ({"enabled": True}, 32), ({"effort": "low"}, 32)],
)
def test_a_limit_of_the_answer_alone_leaves_room_for_the_thoughts(
    wish: dict[str, Any], thought: int
) -> None:
    """Both together are what is held."""
    sent = body(
        Form(output_field="max_tokens", reasoning="enable_thinking"), params={"reasoning": wish}
    )
    assert (sent["thinking_budget"], sent["max_tokens"]) == (thought, 64 - thought)
    with pytest.raises(RequestRejected, match="max_tokens"):
        body(
            Form(output_field="max_tokens", reasoning="enable_thinking"),
            params={"reasoning": {"max_tokens": 64}},
        )


def test_a_budget_that_cannot_be_said_is_refused() -> None:
    """Rather than forgotten."""
    with pytest.raises(RequestRejected, match=r"reasoning\.max_tokens"):
        body(Form(reasoning="effort"), params={"reasoning": {"max_tokens": 9}})


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("none", {"content": "hi"}),
        ("reasoning", {"content": "hi", "reasoning": "hm"}),
        ("reasoning_content", {"content": "hi", "reasoning_content": "hm"}),
        (
            "thinking",
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "hi"},
                ]
            },
        ),
        (
            "reasoning_details",
            {"content": "hi", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        ),
    ],
)
def test_reasoning_goes_back_where_the_vendor_looks_for_it(
    field: Any, expected: dict[str, Any]
) -> None:
    """As text, as parts of content, as it came, or not at all; details are text for want of it."""
    before = talk(reasoning_details=[{"type": "reasoning.text", "text": "hm"}])
    said = dict(body(Form(reasoning_field=field), messages=before)["messages"][1])
    del said["role"], said["tool_calls"]
    assert said == expected


def test_ids_of_calls_are_made_to_fit_on_both_sides() -> None:
    """The call and its result keep the same id; one that fits stays."""
    sent = body(Form(call_id_chars=9), messages=talk())["messages"]
    new = sent[1]["tool_calls"][0]["id"]
    assert new == sent[2]["tool_call_id"]
    assert len(new) == 9
    assert new.isalnum()
    fits = ({"role": "tool", "tool_call_id": "aB3456789", "content": ""},)
    assert body(Form(call_id_chars=9), messages=fits)["messages"][0] == fits[0]


def test_what_a_vendor_does_not_know_of_messages_is_left_out() -> None:
    """The developer becomes the system, marks of cached prefixes go."""
    mark = {"type": "ephemeral"}
    part = {"type": "text", "text": "a", "cache_control": mark}
    given = ({"role": "developer", "content": [part]},)
    tools = [{"type": "function", "function": {"name": "f"}, "cache_control": mark}]
    form = Form(developer=False, cache_control=False)
    sent = body(form, messages=given, params={"tools": tools})
    assert sent["messages"] == [{"role": "system", "content": [{"type": "text", "text": "a"}]}]
    assert sent["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert part["cache_control"] is mark, "the caller's message stays as it was"


def test_vendor_options_have_the_last_word() -> None:
    """They are meant for just this endpoint."""
    options = ProviderPreferences(options={"mi": {"safe_prompt": True}})
    request = replace_request(provider=options)
    sent = shaped(request, vendor("mistral"), model="m", options_key="mi")
    assert sent["safe_prompt"] is True


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "takes"), [("llama-cpp", False), ("groq", True), ("", True)])
async def test_our_request_id_goes_only_to_servers_that_take_one(name: str, takes: bool) -> None:
    """The server of llama-cpp-python answers 400 to an id that is no UUID."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(*answer("Hi"))
        await exchange.end()

    async with serving(script) as upstream:
        options = {"vendor": name} if name else {}
        backend = build(BackendConfig("openai", "m", upstream.base_url, options=options))
        await everything(backend)
        await backend.aclose()
    assert ("x-request-id" in upstream.requests[0].headers) is takes


@pytest.mark.parametrize("name", ["openai", "azure"])
def test_openais_embeddings_have_no_kinds_of_input(name: str) -> None:
    """It refuses ``input_type``, which others' embeddings know."""
    assert "embeddings.input_type" in vendor(name).drop
    assert "embeddings.dimensions" not in vendor(name).drop
