"""An upstream says whether it is there, and what it serves, without a prompt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import backends
from backends.base import BackendConfig, Probe, Probing
from backends.transport import MAX_LIST_BYTES
from tests.upstream import Exchange, Request, Script, Upstream, replies, serving, unused_port

pytestmark = pytest.mark.anyio

LIST = {"object": "list", "data": [{"id": "one", "object": "model"}, {"id": "two"}]}
BUSY = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="one"} 2.0
vllm:num_requests_running{engine="1",model_name="one"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="one"} 12.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="one",reason="capacity"} 12.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="one"} 0.41
vllm:kv_cache_usage_perc{engine="1",model_name="one"} 0.07
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="one"} 7.0
"""
TAGS = {"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}, {"name": "gemma:latest"}]}


async def probed(
    kind: str, url: str, model: str = "one", seconds: float = 5.0, **options: Any
) -> Probe:
    """Ask an endpoint of this kind."""
    config = BackendConfig(kind, model, url, api_keys=(lambda: "sk-1",), options=options)
    backend = backends.load(config)
    assert isinstance(backend, Probing)
    try:
        return await backend.probe(deadline=asyncio.get_running_loop().time() + seconds)
    finally:
        await backend.aclose()


def asked(upstream: Upstream) -> list[tuple[str, str]]:
    """Return what was asked, without bodies, all of which must be empty."""

    def line(request: Request) -> tuple[str, str]:
        assert request.body == b""
        assert request.headers["host"] == f"127.0.0.1:{upstream.port}"
        return request.method, request.path

    return [line(request) for request in upstream.requests]


async def test_a_list_of_models_is_read() -> None:
    """With the endpoint's key, below its address."""
    async with serving(replies(200, LIST)) as upstream:
        probe = await probed("openai", upstream.base_url)
    assert probe == Probe(True, "answers", frozenset({"one", "two"}))
    assert asked(upstream) == [("GET", "/v1/models")]
    assert upstream.requests[0].headers["authorization"] == "Bearer sk-1"


async def test_a_list_without_the_object_around_it_is_read() -> None:
    """As some vendors send it, and in pieces."""

    async def pieces(exchange: Exchange) -> None:
        await exchange.head(200, {"Content-Type": "application/json"})
        await exchange.send(b'[{"id"', b': "one"}]')
        await exchange.end()

    async with serving(pieces) as upstream:
        probe = await probed("openai", upstream.base_url)
    assert probe.models == {"one"}


@pytest.mark.parametrize(
    ("model", "options", "served"),
    [
        ("one:fast", {}, {"one", "two", "one:fast"}),
        ("three:fast", {}, {"one", "two"}),
        ("three", {"vendor": "llama-cpp"}, None),
    ],
)
async def test_names_that_no_list_has_are_not_missed(
    model: str, options: dict[str, str], served: set[str] | None
) -> None:
    """Variants after a colon, and servers that take any name."""
    async with serving(replies(200, LIST)) as upstream:
        probe = await probed("openai", upstream.base_url, model, **options)
    assert probe.models == served


async def test_vllm_says_first_whether_it_is_well() -> None:
    """Its health stands beside the API."""
    async with serving(replies(200), replies(200, LIST), replies(200, BUSY)) as upstream:
        probe = await probed("vllm", upstream.base_url)
    assert probe.models == {"one", "two"}
    assert probe.detail == "answers: 5 running, 12 waiting, KV cache 41% full"
    assert asked(upstream) == [("GET", "/health"), ("GET", "/v1/models"), ("GET", "/metrics")]


async def silent(exchange: Exchange) -> None:
    """Say nothing."""
    await exchange.hang()


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (replies(200, b"vllm:gpu_cache_usage_perc 0.5\n"), "answers: KV cache 50% full"),
        (replies(200, b"vllm:num_requests_running NaN\n"), "answers: nan running"),
        (replies(200, b"# TYPE vllm:num_requests_running gauge\nup 1\n"), "answers"),
        (replies(200, b""), "answers"),
        (replies(200, b"<html>welcome</html>"), "answers"),
        (replies(200, b'vllm:num_requests_running{engine="0 1\n'), "answers"),
        (replies(200, b"\xff\xfe"), "answers"),
        (replies(200, b"vllm:num_requests_running 1\n" + b"# a\n" * 2**18), "answers"),
        (replies(404), "answers"),
        (replies(500), "answers"),
        (silent, "answers"),
    ],
)
async def test_a_vllm_without_metrics_is_as_well_as_before(page: Script, words: str) -> None:
    """Absent, older, broken, another page, too long, or not in time."""
    async with serving(replies(200), replies(200, LIST), page) as upstream:
        probe = await probed("vllm", upstream.base_url, seconds=1.0)
    assert probe == Probe(True, words, frozenset({"one", "two"}))


async def test_a_vllm_that_is_not_well_is_not_asked_further() -> None:
    """Its engine is dead although it answers."""
    async with serving(replies(503)) as upstream:
        probe = await probed("vllm", upstream.base_url)
    assert (probe.ok, probe.models) == (False, None)
    assert "503" in probe.detail
    assert asked(upstream) == [("GET", "/health")]


async def test_ollama_lists_its_tags() -> None:
    """A name without a tag means the latest."""
    async with serving(replies(200, TAGS)) as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        probe = await probed("ollama", url, "gemma")
    assert probe.models == {"qwen3:8b", "gemma:latest", "gemma"}
    assert asked(upstream) == [("GET", "/api/tags")]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "/openai/v1/models"),
        ({"api_version": "2024-10-21"}, "/openai/models?api-version=2024-10-21"),
    ],
)
async def test_azure_lists_models_not_deployments(options: dict[str, str], path: str) -> None:
    """So that no deployment is missing."""
    async with serving(replies(200, LIST)) as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        probe = await probed("azure", url, "my-deployment", **options)
    assert probe == Probe(True, "answers", None)
    assert asked(upstream) == [("GET", path)]


@pytest.mark.parametrize(
    ("script", "ok", "words"),
    [
        (replies(404, {}), True, "answers"),
        (replies(405, {}), True, "answers"),
        (replies(401, {"error": {"message": "bad key"}}), False, "401: bad key"),
        (replies(500, {}), False, "500"),
        (replies(302, b"", {"Location": "http://127.0.0.1:9/"}), False, "302"),
        (replies(200, b"<html>welcome</html>"), False, "look at 'base_url'"),
        (replies(200, {"hello": "world"}), False, "look at 'base_url'"),
        (replies(200, {"data": 7}), False, "look at 'base_url'"),
        (replies(200, {"data": ["one"]}), False, "look at 'base_url'"),
        (replies(200, b" " * (MAX_LIST_BYTES + 1)), False, "passed"),
    ],
)
async def test_what_else_it_may_answer(script: Script, ok: bool, words: str) -> None:
    """No page is an answer too; a refused key, a failure and another server are not."""
    async with serving(script) as upstream:
        probe = await probed("openai", upstream.base_url)
    assert (probe.ok, probe.models) == (ok, None)
    assert words in probe.detail


async def test_one_that_is_not_there_is_told() -> None:
    """Nothing is raised."""
    probe = await probed("openai", f"http://127.0.0.1:{unused_port()}/v1")
    assert not probe.ok
    assert "no connection" in probe.detail


async def test_one_that_breaks_off_is_told() -> None:
    """In the middle of its list."""

    async def broken(exchange: Exchange) -> None:
        await exchange.head(200, {"Content-Length": "100"}, chunked=False)
        await exchange.raw(b"[")
        exchange.cut()

    async with serving(broken) as upstream:
        probe = await probed("openai", upstream.base_url)
    assert not probe.ok


async def test_one_that_stays_silent_is_told_at_the_deadline() -> None:
    """And its connection is closed."""

    async def silent(exchange: Exchange) -> None:
        await exchange.hang()

    async with serving(silent) as upstream:
        probe = await probed("openai", upstream.base_url, seconds=0.05)
        await (await upstream.exchange()).gone.wait()
    assert probe == Probe(False, "no answer in time")


async def test_other_kinds_have_no_such_question() -> None:
    """They are used without it."""
    assert not isinstance(backends.load(BackendConfig("fake", "m")), Probing)
