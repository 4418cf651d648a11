"""An endpoint whose window surely has no room for a request is left out; what only may not is not.

A prompt is counted for that only where its bytes and what the caller asks for do not fit.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.types import ChatRequest
from gateway.tokenizer.encodings import load
from gateway.tokens import least_text, slack_tokens
from tests.gateway.tokenizers import listener, served
from tests.gateway_harness import Gateway, fake, model, running, settings, until
from tests.upstream import Exchange, Script, Upstream, answer, replies, serving, streams

pytestmark = pytest.mark.anyio

WINDOW = 1_000
LONG = "x " * 1_200
"""Some 1,200 tokens: above the window by count, too."""

FITS = "x " * 600
"""Some 600 tokens in 1,200 bytes: above the window only by its bytes."""

ANSWERS = streams(*answer("ok"))
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def small(**more: Any) -> dict[str, Any]:
    """An endpoint with a window and a tokenizer."""
    return fake(tokens=3) | {
        "provider": "small",
        "context_tokens": WINDOW,
        "tokenizer": "o200k_base",
        **more,
    }


def counting(upstream: Upstream, **more: Any) -> dict[str, Any]:
    """An endpoint with a window, whose upstream counts."""
    return {
        "backend": "vllm",
        "provider": "small",
        "base_url": upstream.base_url,
        "model": "m",
        "price": {"prompt": "1", "completion": "1"},
        "context_tokens": WINDOW,
        **more,
    }


def ordered(*endpoints: dict[str, Any]) -> Any:
    """A model whose endpoints are tried in this order."""
    return settings(model(*endpoints, strategy="ordered"))


async def ask(gateway: Gateway, text: Any, **more: Any) -> Any:
    """The answer to one question."""
    return await gateway.chat(messages=[{"role": "user", "content": text}], **more)


async def provider(gateway: Gateway, text: Any, **more: Any) -> str:
    """Who answers it."""
    reply = await ask(gateway, text, **more)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["provider"])


LARGE = fake(tokens=3) | {"provider": "large", "context_tokens": 100_000}


async def test_an_endpoint_whose_window_is_too_small_is_left_out(
    redis_url: str, process: str
) -> None:
    """Another answers, and the record says by how many tokens; the first is never asked."""
    await served(process)
    async with running(redis_url, ordered(small(), LARGE), tokenizer=process) as gateway:
        reply = await ask(gateway, LONG)
        assert reply.json()["provider"] == "large"
        record = await gateway.generation(reply.json()["id"])
        [rejected] = record["plan"]["rejections"]
        assert rejected["reason"] == "context_length"
        assert f"above its context window of {WINDOW}" in rejected["detail"]
        assert len(record["provider_responses"]) == 1
        await gateway.audited()


async def test_what_fits_by_count_stays_where_it_was_planned(redis_url: str, process: str) -> None:
    """Nothing is left out, and the hold is by bytes as ever."""
    await served(process)
    async with running(redis_url, ordered(small(), LARGE), tokenizer=process) as gateway:
        assert await provider(gateway, FITS) == "small"
        assert await provider(gateway, FITS, max_tokens=300) == "small"
        assert await provider(gateway, FITS, max_tokens=500) == "large"


@pytest.mark.parametrize(
    ("text", "limit", "param"), [(LONG, None, None), (LONG, 10, None), (FITS, 500, "max_tokens")]
)
async def test_where_none_is_left_the_refusal_says_by_how_much(
    redis_url: str, process: str, text: str, limit: int | None, param: str | None
) -> None:
    """A 400 of the kind that clients know to shorten for; nothing is clamped, nothing held."""
    await served(process)
    async with running(redis_url, ordered(small()), tokenizer=process) as gateway:
        reply = await ask(gateway, text, max_tokens=limit)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert error["param"] == param
        assert error["metadata"]["error_type"] == "context_length_exceeded"
        assert f"above its context window of {WINDOW} tokens" in error["message"]
        assert (f"max_tokens {limit}" in error["message"]) == (param is not None)
        assert (await gateway.audited()).spent_nanodollars == 0


async def test_an_upstreams_own_count_leaves_it_out(redis_url: str) -> None:
    """It is asked to count, and for no answer."""
    async with serving(replies(200, {"count": WINDOW})) as upstream:
        async with running(redis_url, ordered(counting(upstream), LARGE)) as gateway:
            assert await provider(gateway, FITS) == "large"
            await gateway.audited()
        assert [request.path for request in upstream.requests] == ["/tokenize"]


async def silent(exchange: Exchange) -> None:
    """Say nothing."""
    await exchange.hang()


@pytest.mark.parametrize(
    "count", [replies(200, {"count": WINDOW - 1}), replies(404), replies(200, b"?"), silent]
)
async def test_an_upstream_that_fits_or_does_not_say_is_asked(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, count: Script
) -> None:
    """Soon, also where its count hangs: then it decides itself."""
    monkeypatch.setattr("gateway.counts.WINDOW_S", 0.05)
    async with serving(count, ANSWERS) as upstream:
        async with running(redis_url, ordered(counting(upstream), LARGE)) as gateway:
            assert await provider(gateway, FITS) == "small"
            await gateway.audited()
        paths = [request.path for request in upstream.requests]
        assert paths == ["/tokenize", "/v1/chat/completions"]


async def test_a_client_that_leaves_during_a_count_is_logged_and_counted(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that leaves later is; nothing is held, and no other question is asked."""
    caplog.set_level(logging.INFO)
    async with serving(silent) as upstream:
        given = settings(model(counting(upstream), id="m"))
        async with running(redis_url, given) as gateway:
            wire = await gateway.connect()
            question = [{"role": "user", "content": FITS}]
            wire.writer.write(gateway.request(model="m", messages=question))
            await until(lambda: upstream.requests)
            await wire.close()
            await until(lambda: len(gateway.worker.ticker) == 0)
            row = 'tollway_requests_total{dialect="openai",model="m",status="499"}'
            assert await gateway.metric(row) == 1
            assert (await gateway.audited()).spent_nanodollars == 0
        assert [request.path for request in upstream.requests] == ["/tokenize"]
    lines = [line for record in caplog.records for _, line in getattr(record, "lines", ())]
    assert [line["status"] for line in lines] == [499]


async def test_an_endpoint_without_a_count_stays(redis_url: str, tmp_path: Path) -> None:
    """Where no tokenizer is named, and where it does not answer: its upstream decides."""
    unnamed = fake(tokens=3) | {"provider": "small", "context_tokens": WINDOW}
    for endpoint in (unnamed, small()):
        given = ordered(endpoint, LARGE)
        async with running(redis_url, given, tokenizer=str(tmp_path / "gone")) as gateway:
            assert await provider(gateway, LONG) == "small"


async def test_texts_are_counted_beside_images_but_not_by_the_upstream(
    redis_url: str, process: str
) -> None:
    """The texts alone are too long already; a count of images would be no count of ours."""
    await served(process)
    async with serving(ANSWERS) as upstream:
        sees = counting(upstream, provider="large", context_tokens=WINDOW)
        named = counting(upstream, tokenizer="o200k_base")
        async with running(redis_url, ordered(named, sees), tokenizer=process) as gateway:
            assert await provider(gateway, [{"type": "text", "text": LONG}, IMAGE]) == "large"
        assert [request.path for request in upstream.requests] == ["/v1/chat/completions"]


async def test_a_text_in_many_parts_is_no_longer_than_in_one(redis_url: str, process: str) -> None:
    """Templates put the parts of a message close together."""
    await served(process)
    words = "The quick brown fox jumps over the lazy dog. " * 12
    parts = [{"type": "text", "text": letter} for letter in words]
    async with running(
        redis_url, ordered(small(context_tokens=600), LARGE), tokenizer=process
    ) as gateway:
        assert await provider(gateway, words, max_tokens=100) == "small"
        assert await provider(gateway, parts, max_tokens=100) == "small"


WORDS = st.sampled_from(
    [
        *("internationalization", " the", "x", "don", "'ll", "Straßenbahn", "東京都", "ไม่เป็นไร"),
        *(" ", "  ", "\n\n", "\t", "def f():\n    ", "1234567", "!!!", "://", "🚏", "ab" * 9),
        *("<think>", "</think>"),
    ]
)
TEXTS = st.lists(WORDS | st.text(max_size=6), max_size=12).map("".join)
TURNS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), TEXTS | st.lists(TEXTS)),
    min_size=1,
    max_size=5,
)


def written(turns: list[tuple[str, str | list[str]]]) -> Iterator[list[str]]:
    """The prompt in many templates' words: texts between control tokens, of one token each."""
    closings = ("", "\n", " ")
    for between, strip, forget in itertools.product(closings, (False, True), (False, True)):
        texts = []
        for role, content in turns:
            parts = [content] if isinstance(content, str) else content
            text = between.join(part.strip() for part in parts) if strip else between.join(parts)
            if forget and role == "assistant":
                text = text.rpartition("</think>")[2]
            texts.append((role, text.strip() if strip else text))
        yield ["".join(text for _, text in texts)]
        yield [" ".join(text for _, text in texts)]
        yield ["\n\n".join(text for _, text in texts)]
        yield ["".join(f"{role.title()}: {text}\n" for role, text in texts)]
        yield [piece for role, text in texts for piece in (f"{role}\n{text}", "\n")]
        yield [f" {text} " for _, text in texts]
        yield [text for _, text in texts]


@given(TURNS)
@hypothesis.settings(deadline=None, max_examples=300)
def test_the_least_is_no_more_than_in_any_template(turns: list[tuple[str, Any]]) -> None:
    """Also in one that puts nothing between two messages."""
    count = load("o200k_base")
    messages = tuple(
        {"role": role, "content": content}
        if isinstance(content, str)
        else {"role": role, "content": [{"type": "text", "text": text} for text in content]}
        for role, content in turns
    )
    request = ChatRequest(
        models=("m",), messages=messages, params={}, required=frozenset(), prompt_bytes=1
    )
    least = count(least_text(request)) - slack_tokens(request)
    for pieces in written(turns):
        assert least <= sum(count(piece) for piece in pieces), pieces


async def test_nothing_is_counted_where_bytes_fit_or_the_upstream_may_shorten(
    redis_url: str, tmp_path: Path
) -> None:
    """A prompt of few bytes; one that its caller lets the upstream cut; fields of his own."""
    path = str(tmp_path / "s")
    async with (
        listener(path) as asked,
        serving(ANSWERS) as upstream,
        running(
            redis_url, ordered(counting(upstream, tokenizer="o200k_base")), tokenizer=path
        ) as gateway,
    ):
        own = {"options": {"small": {"truncate_prompt_tokens": 100}}}
        assert await provider(gateway, "x " * 100, max_tokens=10) == "small"
        assert await provider(gateway, LONG, provider=own) == "small"
        assert asked == []
        assert await provider(gateway, LONG) == "small"
        assert asked == [1]
