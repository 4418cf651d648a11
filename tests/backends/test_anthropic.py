"""The Anthropic adapter keeps the contract, over TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import backends
from backends.anthropic import build, check
from backends.base import BackendConfig
from backends.errors import EndpointRejected, RateLimited, RequestRejected, UpstreamFailed
from backends.types import Finish, Native, ToolCallDelta
from tests.anthropic_wire import answer, end, event, start, text, tool_use
from tests.contracts.backend_contract import (
    BackendContract,
    Case,
    Rig,
    everything,
    into,
    replace_request,
    texts,
)
from tests.upstream import Exchange, Script, Upstream, replies, serving, streams

pytestmark = pytest.mark.anyio


def config(base_url: str, **more: Any) -> BackendConfig:
    """Return the settings of an endpoint."""
    return BackendConfig(
        "anthropic", "up-model", base_url, api_keys=(lambda: "sk-ant",), options_key="acme", **more
    )


@asynccontextmanager
async def asking(*scripts: Script, **more: Any) -> AsyncIterator[tuple[Any, Upstream]]:
    """Give a backend before a scripted server."""
    async with serving(*scripts) as upstream:
        backend = build(config(upstream.base_url, **more))
        try:
            yield backend, upstream
        finally:
            await backend.aclose()


class TestAnthropic(BackendContract):
    """A URL that speaks the Messages wire."""

    stop_word = "end_turn"

    @asynccontextmanager
    async def upstream(self, case: Case) -> AsyncIterator[Rig]:
        """Play the case over the wire."""
        async with asking(lambda exchange: play(case, exchange)) as (backend, upstream):

            async def left() -> None:
                await (await upstream.exchange()).gone.wait()

            yield Rig(backend, left)

    async def test_every_choice_speaks_and_ends(self) -> None:
        """This wire has one choice, and the adapter does not claim more."""
        async with self.upstream(Case()) as rig:
            assert rig.backend.capabilities.fields is not None
            assert "n" not in rig.backend.capabilities.fields


async def play(case: Case, exchange: Exchange) -> None:
    """Do what a case says, in this wire's bytes."""
    if case.fail == "status":
        wait = {} if case.retry_after_s is None else {"Retry-After": f"{case.retry_after_s:g}"}
        error = {"type": "error", "error": {"type": "x", "message": "as scripted"}}
        await replies(case.status, error, wait)(exchange)
        return
    if case.after == 0 and case.fail == "reset":
        exchange.reset()
        return
    if case.after == 0 and case.fail == "stall":
        await exchange.hang()
        return
    events = answer(*case.pieces, counted=case.counted)
    await exchange.head()
    await exchange.send(*events[:3])
    for number, piece in enumerate((*events[3 : 3 + len(case.pieces)], None)):
        if case.fail is not None and case.after == number:
            match case.fail:
                case "garbage":
                    await exchange.send(b"data: [garbage, not JSON\n\n")
                case "stall":
                    await exchange.hang()
                    return
                case "cut":
                    await exchange.end()
                    return
                case _:
                    exchange.reset()
                    return
        if piece is not None:
            await exchange.send(piece)
    await exchange.send(*events[3 + len(case.pieces) :])
    await exchange.end()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_request_is_of_the_wire(suffix: str) -> None:
    """Path, key, version, the bound as ``max_tokens``; a base URL may end in ``/v1``."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = build(config(f"http://127.0.0.1:{upstream.port}{suffix}"))
        await everything(backend)
        await backend.aclose()
    [request] = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == "sk-ant"
    assert "authorization" not in request.headers
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "anthropic-beta" not in request.headers
    assert request.headers["x-request-id"] == "req-1"
    assert request.json() == {
        "model": "up-model",
        "max_tokens": 64,
        "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Grüß Gott"}]}],
    }


async def test_options_of_the_kind_set_headers_and_the_way_of_thinking() -> None:
    """Version and betas in their headers; effort as a level where the model takes one."""
    options = {
        "anthropic_version": "2030-01-01",
        "anthropic_betas": ["one", "two"],
        "adaptive_thinking": True,
    }
    request = replace_request(params={"reasoning": {"effort": "high"}})
    async with asking(streams(*answer("ok")), options=options) as (backend, upstream):
        await everything(backend, request)
    [asked] = upstream.requests
    assert asked.headers["anthropic-version"] == "2030-01-01"
    assert asked.headers["anthropic-beta"] == "one,two"
    assert asked.json()["thinking"] == {"type": "adaptive"}
    assert asked.json()["output_config"] == {"effort": "high"}


async def test_a_clients_own_document_goes_on_as_it_is() -> None:
    """Also what no other wire knows; model and limit are the endpoint's."""
    document = {
        "model": "public",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "new": 1}]}],
        "metadata": {"user_id": "u"},
    }
    request = replace_request(native=Native("messages", document))
    async with asking(streams(*answer("ok"))) as (backend, upstream):
        await everything(backend, request)
    [asked] = upstream.requests
    assert asked.json() == {
        "model": "up-model",
        "max_tokens": 64,
        "stream": True,
        "messages": document["messages"],
    }


async def test_parallel_calls_arrive_as_calls() -> None:
    """Each with its id and name first; a call without arguments has an empty object."""
    said = [start({"input_tokens": 3}), *text(0, "Both:")]
    said += [*tool_use(1, "time"), *tool_use(2, "sum", '{"a', '":1}'), *end("tool_use")]
    async with asking(streams(*said)) as (backend, _):
        events = await everything(backend)
    assert [e for e in events if isinstance(e, ToolCallDelta)] == [
        ToolCallDelta(0, 0, "toolu_1", "time", ""),
        ToolCallDelta(0, 0, None, None, "{}"),
        ToolCallDelta(0, 1, "toolu_2", "sum", ""),
        ToolCallDelta(0, 1, None, None, '{"a'),
        ToolCallDelta(0, 1, None, None, '":1}'),
    ]
    assert isinstance(events[-1], Finish)
    assert events[-1].choices[0].reason == "tool_calls"


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        ("overloaded_error", UpstreamFailed, 529),
        ("rate_limit_error", RateLimited, 429),
        ("authentication_error", EndpointRejected, 401),
        ("invalid_request_error", RequestRejected, 400),
    ],
)
async def test_an_error_in_the_stream_is_the_error_that_its_type_stands_for(
    kind: str, error: type[Exception], status: int
) -> None:
    """After what was said; a 200 does not make it an answer."""
    report = event("error", error={"type": kind, "message": "sorry"})
    events: list[Any] = []
    said = [start(), *text(0, "half")[:2], report]
    async with asking(streams(*said)) as (backend, _):
        with pytest.raises(error) as caught:
            await into(events, backend)
    assert texts(events) == ["half"]
    assert caught.value.upstream_status == status  # type: ignore[attr-defined]
    assert caught.value.message == "sorry"  # type: ignore[attr-defined]


async def test_an_answer_that_comes_whole_is_understood() -> None:
    """Some servers do not stream."""
    message = {
        "id": "msg_1",
        "type": "message",
        "content": [{"type": "text", "text": "whole"}],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 3, "output_tokens": 5},
    }
    async with asking(replies(200, message)) as (backend, _):
        events = await everything(backend)
    assert texts(events) == ["whole"]
    assert isinstance(events[-1], Finish)
    assert events[-1].choices[0].reason == "length"


async def test_an_upstream_that_does_not_hang_up_does_not_hold_the_answer() -> None:
    """After ``message_stop`` nothing more is owed."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(*answer("ok"))
        await exchange.hang()

    async with asking(script) as (backend, upstream):
        assert isinstance((await everything(backend))[-1], Finish)
        await (await upstream.exchange()).gone.wait()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": ""}, "'model'"),
        ({"base_url": "ftp://x"}, "'base_url'"),
        ({"options": {"anthropic_betas": "one"}}, "array"),
    ],
)
def test_what_is_wrong_with_an_endpoint_is_found_without_its_secrets(
    changes: dict[str, Any], words: str
) -> None:
    """Each says which key."""
    given = {"kind": "anthropic", "model": "m", **changes}
    with pytest.raises(ValueError, match=words):
        backends.check(BackendConfig(**given))


def test_an_address_is_not_needed() -> None:
    """The vendor's own is the default."""
    check(BackendConfig("anthropic", "m"))
