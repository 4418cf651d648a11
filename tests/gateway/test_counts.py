"""A prompt is counted exactly only where its bound by bytes does not fit the credit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from backends.types import ChatRequest, Native
from gateway.tokens import least_text, plain_text, whole_text
from tests.gateway.tokenizers import listener, served
from tests.gateway_harness import Gateway, fake, model, running, settings
from tests.upstream import Exchange, Upstream, answer, replies, serving, streams

pytestmark = pytest.mark.anyio

PRICE = {"prompt": "1", "completion": "1"}
DEAR = {"prompt": "100", "completion": "1"}
WORDS = 2_000
TEXT = "x " * WORDS
"""Some 2,000 tokens in 4,000 bytes. By bytes it needs 0.0043 USD, by count less than 0.0024."""

BY_COUNT, TOO_LITTLE, LESS_THAN_THE_OUTPUT = "0.003", "0.002", "0.0002"
SEES = {
    "backend": "openai",
    "base_url": "http://127.0.0.1:1/v1",
    "model": "m",
    "price": PRICE,
    "tokenizer": "o200k_base",
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def named(price: dict[str, str] = PRICE, **more: Any) -> dict[str, Any]:
    """An endpoint whose prompts can be counted."""
    return fake(price, tokens=3) | {"tokenizer": "o200k_base"} | more


def served_by(upstream: Upstream, **more: Any) -> dict[str, Any]:
    """An endpoint whose upstream counts."""
    return {
        "backend": "vllm",
        "base_url": upstream.base_url,
        "model": "m",
        "price": PRICE,
        **more,
    }


def asked(upstream: Upstream) -> list[str]:
    """What was asked of it."""
    return [request.path for request in upstream.requests]


COUNTS = replies(200, {"count": WORDS, "max_model_len": 8192, "tokens": []})
ANSWERS = streams(*answer("ok"))


async def ask(gateway: Gateway, text: Any = TEXT, **more: Any) -> int:
    """The status of one question with a long prompt."""
    messages = [{"role": "user", "content": text}]
    return (await gateway.chat(messages=messages, max_tokens=10, **more)).status_code


async def test_what_does_not_fit_by_bytes_fits_by_count(redis_url: str, process: str) -> None:
    """Held for the count and the template, charged as reported, in full."""
    await served(process)
    given = settings(model(named()))
    async with running(redis_url, given, usd=BY_COUNT, tokenizer=process) as gateway:
        answer = await gateway.chat(messages=[{"role": "user", "content": TEXT}], max_tokens=10)
        assert answer.status_code == 200, answer.text
        record = await gateway.generation(answer.json()["id"])
        # The fake model reports a quarter of the bytes.
        assert (await gateway.audited()).spent_nanodollars == (len(TEXT) // 4 + 3) * 1000
        (line,) = await gateway.journal()
        assert line.charge_nanodollars == (len(TEXT) // 4 + 3) * 1000
        assert WORDS * 1000 < record["held_nanodollars"] < 2_400_000


@pytest.mark.parametrize("usd", [TOO_LITTLE, LESS_THAN_THE_OUTPUT])
async def test_a_count_that_does_not_help_is_a_402(redis_url: str, process: str, usd: str) -> None:
    """Nothing is held, nothing charged."""
    await served(process)
    given = settings(model(named()))
    async with running(redis_url, given, usd=usd, tokenizer=process) as gateway:
        assert await ask(gateway) == 402
        assert (await gateway.audited()).spent_nanodollars == 0


async def test_what_is_too_dear_even_by_count_is_dropped(redis_url: str, process: str) -> None:
    """The rest answers, the record says why the other did not."""
    await served(process)
    given = settings(model(named(DEAR, provider="dear"), named(provider="cheap")))
    async with running(redis_url, given, usd=BY_COUNT, tokenizer=process) as gateway:
        answer = await gateway.chat(messages=[{"role": "user", "content": TEXT}], max_tokens=10)
        assert answer.status_code == 200, answer.text
        assert answer.json()["provider"] == "cheap"
        await gateway.audited()


@pytest.mark.parametrize("nobody", ["", "gone"])
async def test_without_the_process_the_bound_by_bytes_stands(
    redis_url: str, tmp_path: Path, nobody: str
) -> None:
    """A refusal, and no error."""
    path = str(tmp_path / nobody) if nobody else ""
    given = settings(model(named()))
    async with running(redis_url, given, usd=BY_COUNT, tokenizer=path) as gateway:
        assert await ask(gateway) == 402
        assert await ask(gateway, "x ") == 200
        await gateway.audited()


async def test_nothing_is_asked_where_a_count_cannot_matter(redis_url: str, tmp_path: Path) -> None:
    """A prompt that fits, is free, has an image, or whose output alone is too dear."""
    models = (
        model(named(), id="named"),
        model(named({"prompt": "0", "completion": "1000"}), id="free"),
        model(named({"prompt": "1", "completion": "1000"}), id="output"),
        model(fake(PRICE), id="unnamed"),
        model(SEES, id="sees"),
    )
    async with (
        listener(tmp_path / "s") as asked,
        running(
            redis_url, settings(*models), usd=BY_COUNT, tokenizer=str(tmp_path / "s")
        ) as gateway,
    ):
        assert await ask(gateway, "x ", model="named") == 200
        for name in ("free", "output", "unnamed"):
            assert await ask(gateway, model=name) == 402, name
        assert await ask(gateway, [{"type": "text", "text": TEXT}, IMAGE], model="sees") == 402
        assert asked == []
        assert await ask(gateway, model="named") == 402
        assert asked == [1]
        await gateway.audited()


async def test_one_question_serves_every_endpoint_of_a_tokenizer(
    redis_url: str, tmp_path: Path
) -> None:
    """And each tokenizer is asked once."""
    endpoints = [named(), named(), named(tokenizer="cl100k_base")]
    async with (
        listener(tmp_path / "s") as asked,
        running(
            redis_url,
            settings(model(*endpoints)),
            usd=BY_COUNT,
            tokenizer=str(tmp_path / "s"),
        ) as gateway,
    ):
        assert await ask(gateway) == 402
        assert asked == [1, 1]


async def test_what_does_not_fit_by_bytes_fits_by_the_upstreams_own_count(redis_url: str) -> None:
    """Held for it and the template, charged as reported; a prompt that fits is not counted."""
    async with serving(COUNTS, ANSWERS) as upstream:
        given = settings(model(served_by(upstream)))
        async with running(redis_url, given, usd=BY_COUNT) as gateway:
            reply = await gateway.chat(messages=[{"role": "user", "content": TEXT}], max_tokens=10)
            assert reply.status_code == 200, reply.text
            assert asked(upstream) == ["/tokenize", "/v1/chat/completions"]
            record = await gateway.generation(reply.json()["id"])
            assert record["held_nanodollars"] == (WORDS + 256 + 10) * 1000
            assert (await gateway.audited()).spent_nanodollars == (7 + 1) * 1000
            assert await ask(gateway, "x ") == 200
            assert asked(upstream)[2:] == ["/v1/chat/completions"]
            await gateway.audited()


async def test_upstreams_that_do_not_say_their_count_are_waited_for_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are asked at the same time; one that says it is held by it, whoever stands before it."""
    monkeypatch.setattr("gateway.counts.CREDIT_S", 1.0)
    here: list[Exchange] = []
    together = asyncio.Event()

    async def hang(exchange: Exchange) -> None:
        here.append(exchange)
        if len([one for one in here if not one.gone.is_set()]) == 3:
            together.set()
        await exchange.hang()

    async def count(exchange: Exchange) -> None:
        await together.wait()
        await COUNTS(exchange)

    async with serving(hang) as silent, serving(count, ANSWERS) as upstream:
        slow = [served_by(silent, provider=f"slow{n}") for n in range(3)]
        given = settings(model(*slow, served_by(upstream, provider="says"), strategy="ordered"))
        async with running(redis_url, given, usd=BY_COUNT) as gateway:
            messages = [{"role": "user", "content": TEXT}]
            reply = await gateway.chat(messages=messages, max_tokens=10)
            assert reply.status_code == 200, reply.text
            assert reply.json()["provider"] == "says"
            await gateway.audited()
        assert asked(silent) == ["/tokenize"] * 3


@pytest.mark.parametrize(
    "no_count", [replies(404), replies(200, b"?"), replies(200, {"count": 10**6})]
)
async def test_without_the_upstreams_count_the_bound_by_bytes_stands(
    redis_url: str, no_count: Any
) -> None:
    """Also with one that is larger than any count can be; and it says nothing of its health."""
    async with serving(no_count, ANSWERS) as upstream:
        given = settings(model(served_by(upstream)))
        async with running(redis_url, given, usd=BY_COUNT) as gateway:
            assert await ask(gateway) == 402
            assert await ask(gateway, "x ") == 200
            await gateway.audited()


async def test_an_upstream_is_not_asked_to_count_what_it_need_not_or_cannot(
    redis_url: str, process: str
) -> None:
    """Where a tokenizer is named, and where a prompt has more than texts."""
    await served(process)
    async with serving(ANSWERS) as upstream:
        models = (
            model(served_by(upstream, tokenizer="o200k_base"), id="named"),
            model(served_by(upstream), id="sees"),
        )
        async with running(
            redis_url, settings(*models), usd=BY_COUNT, tokenizer=process
        ) as gateway:
            assert await ask(gateway, [{"type": "text", "text": TEXT}, IMAGE], model="sees") == 402
            assert asked(upstream) == []
            assert await ask(gateway, model="named") == 200
            assert asked(upstream) == ["/v1/chat/completions"]
            await gateway.audited()


async def test_the_route_that_counts_is_exact_where_the_upstream_counts(redis_url: str) -> None:
    """And an estimate where it does not answer."""
    body = {"model": "demo/fake", "messages": [{"role": "user", "content": "hello world"}]}
    async with (
        serving(replies(200, {"count": 31}), replies(500)) as upstream,
        running(redis_url, settings(model(served_by(upstream)))) as gateway,
    ):
        seen = []
        for _ in range(2):
            reply = await gateway.client.post(
                "/v1/messages/count_tokens", json=body, headers={"x-api-key": gateway.key}
            )
            assert reply.status_code == 200, reply.text
            seen.append((reply.json()["input_tokens"], "x-tollway-estimate" in reply.headers))
        assert (await gateway.audited()).spent_nanodollars == 0
    assert seen == [(31, False), (2, True)]
    assert asked(upstream) == ["/tokenize", "/tokenize"]


async def test_the_route_that_counts_is_exact_with_a_tokenizer(
    redis_url: str, process: str
) -> None:
    """Without the header of an estimate; with an image, or an unknown model, an estimate again."""
    await served(process)
    given = settings(model(named()), model(fake(), id="unnamed"))
    text = "hello world"

    async with running(redis_url, given, tokenizer=process) as gateway:

        async def count(name: str = "demo/fake", **more: Any) -> tuple[int, bool]:
            body = {"model": name, "messages": [{"role": "user", "content": text}]} | more
            reply = await gateway.client.post(
                "/v1/messages/count_tokens", json=body, headers={"x-api-key": gateway.key}
            )
            assert reply.status_code == 200, reply.text
            return reply.json()["input_tokens"], "x-tollway-estimate" in reply.headers

        assert await count() == (2, False)
        with_tools, estimated = await count(
            tools=[{"name": "now", "input_schema": {"type": "object"}}]
        )
        assert with_tools > 10
        assert not estimated
        assert await count("unnamed") == (len(text) // 4, True)
        assert await count("nowhere") == (len(text) // 4, True)
        source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
        blocks = [{"type": "text", "text": text}, {"type": "image", "source": source}]
        seen = [{"role": "user", "content": blocks}]
        assert await count(messages=seen) == (len(text) // 4, True)
        assert (await gateway.audited()).spent_nanodollars == 0


def test_what_is_counted_for_a_hold_has_everything_that_is_sent() -> None:
    """Messages and parameters, or the client's own document where that is what travels."""
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    request = ChatRequest(
        models=("m",),
        messages=(
            {"role": "user", "content": [{"type": "text", "text": "one"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "two"},
        ),
        params={"tools": [{"type": "function"}], "response_format": {"type": "json_object"}},
        required=frozenset(),
        prompt_bytes=100,
    )
    whole = whole_text(request)
    for piece in ("one", "two", "look", "tool_call_id", "json_object", '"tools"'):
        assert piece in whole
    assert plain_text(request).split("\n") == [
        "one",
        "look",
        '{"a":1}',
        "two",
        '[{"type":"function"}]',
    ]
    assert least_text(request) == "one\ntwo"
    native = Native("messages", {"system": "three"})
    own = ChatRequest(
        models=("m",), messages=(), params={}, required=frozenset(), prompt_bytes=1, native=native
    )
    assert whole_text(own) == '{"system":"three"}'


def test_what_is_counted_for_a_window_has_nothing_that_a_template_leaves_out() -> None:
    """Neither thoughts of earlier turns nor white space around texts."""
    request = ChatRequest(
        models=("m",),
        messages=(
            {"role": "user", "content": "  one \n"},
            {"role": "assistant", "content": "<think>long</think>\n\ntwo", "reasoning": "three"},
            {"role": "user", "content": [{"type": "text", "text": "four"}, IMAGE]},
        ),
        params={"tools": [{"type": "function"}]},
        required=frozenset(),
        prompt_bytes=100,
    )
    assert least_text(request) == "one\ntwo\nfour"
