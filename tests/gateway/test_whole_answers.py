"""Faults of whole answers, of reports, and of words that must not reach a client."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.upstreams import Call, answer, cut, refusal, upstream
from tests.gateway_harness import FREE, Gateway, fake, model, running, settings

pytestmark = pytest.mark.anyio


def ordered(*endpoints: dict[str, Any]) -> dict[str, Any]:
    """A model whose endpoints are tried in this order."""
    return model(*endpoints, id="m", strategy="ordered")


async def tried(gateway: Gateway, generation: str) -> list[str]:
    """The outcomes of a generation's attempts."""
    record = await gateway.generation(generation)
    return [attempt["outcome"] for attempt in record["provider_responses"]]


async def test_a_whole_answer_that_breaks_after_content_is_answered_by_the_second(
    redis_url: str,
) -> None:
    """Nothing was sent yet, so failing over is still free of harm; nothing is mixed."""
    async with upstream(cut("one ", "two ")) as first, upstream(answer(["three "])) as second:
        given = settings(ordered(first.endpoint("first", retries=0), second.endpoint("second")))
        async with running(redis_url, given) as gateway:
            reply = await gateway.chat(model="m")
            assert reply.json()["choices"][0]["message"]["content"] == "three "
            assert reply.json()["provider"] == "second"
            _ = await gateway.audited()
            (line,) = await gateway.journal()
            assert line.endpoint == "m@second"
            assert line.tokens["completion"] == 1


async def test_a_whole_answer_that_breaks_everywhere_costs_nothing(redis_url: str) -> None:
    """A client that got an error and no text pays nothing."""
    given = settings(ordered(fake(tokens=9, fail={"how": "cut", "after_tokens": 3})))
    async with running(redis_url, given) as gateway:
        reply = await gateway.chat(model="m")
        assert reply.status_code == 502
        assert (await gateway.audited()).spent_nanodollars == 0
        outcomes = await tried(gateway, reply.headers["x-generation-id"])
        assert outcomes == ["StreamTruncated"] * 3


async def test_a_count_that_content_followed_is_not_the_report(redis_url: str) -> None:
    """Usage in the first chunk only: our own count from there, flagged."""

    async def early(call: Call) -> None:
        await call.start()
        usage = {"prompt_tokens": 5, "completion_tokens": 0}
        await call.event({"choices": [], "usage": usage})
        await call.word("x" * 400)
        await call.finish()
        await call.end()

    async with (
        upstream(early) as up,
        running(redis_url, settings(ordered(up.endpoint("up")))) as gateway,
    ):
        reply = await gateway.chat(model="m")
        assert reply.json()["usage"]["completion_tokens"] == 100
        _ = await gateway.audited()
        (line,) = await gateway.journal()
        assert "usage_missing" in line.flags


async def test_an_empty_stop_with_an_incredible_report_fails_over(redis_url: str) -> None:
    """Fifty tokens that nobody saw are no output; fifty of hidden reasoning are."""
    report = {"prompt_tokens": 7, "completion_tokens": 50}
    thought = {**report, "completion_tokens_details": {"reasoning_tokens": 49}}
    async with (
        upstream(answer([], usage=report)) as empty,
        upstream(answer(["ok "])) as second,
        upstream(answer([], usage=thought)) as thinker,
    ):
        given = settings(
            ordered(empty.endpoint("empty"), second.endpoint("second")),
            model(thinker.endpoint("thinker"), id="thinks"),
        )
        async with running(redis_url, given) as gateway:
            assert (await gateway.chat(model="m")).json()["provider"] == "second"
            silent = (await gateway.chat(model="thinks")).json()
            assert silent["choices"][0]["message"]["content"] == ""
            assert silent["usage"]["completion_tokens"] == 50


async def test_fewer_choices_than_asked_for_is_a_truncated_answer(redis_url: str) -> None:
    """An upstream that forgets the second choice has not answered."""
    async with (
        upstream(answer(["one "])) as up,
        running(redis_url, settings(ordered(up.endpoint("up", retries=0)))) as gateway,
    ):
        reply = await gateway.chat(model="m", n=2)
        assert reply.status_code == 502
        assert await tried(gateway, reply.headers["x-generation-id"]) == ["StreamTruncated"]


async def test_words_about_our_credential_reach_no_client(redis_url: str) -> None:
    """Neither as the last error nor among the previous ones."""
    secret = "sk-PLATFORM-SECRET"
    refused = refusal(401, message=f"Incorrect API key provided: {secret}")
    async with upstream(refused) as first, upstream(refusal(500)) as second:
        given = settings(ordered(first.endpoint("first"), second.endpoint("second", retries=0)))
        async with running(redis_url, given) as gateway:
            reply = await gateway.chat(model="m")
            assert reply.status_code == 502
            assert len(reply.json()["error"]["metadata"]["previous_errors"]) == 1
            assert secret not in reply.text


async def test_a_priced_fallback_does_not_lift_the_limit_of_free_models(redis_url: str) -> None:
    """Twenty a minute, whatever else is named beside the free model."""
    given = settings(
        model(fake(FREE, tokens=1), id="free"), model(fake(tokens=1)), ledger={"free_rpm": 2}
    )
    async with running(redis_url, given) as gateway:
        codes = [
            (await gateway.chat(models=["free", "demo/fake"], model="free")).status_code
            for _ in range(3)
        ]
        assert codes == [200, 200, 429]


async def test_a_refusal_before_the_dispatcher_is_counted_and_logged(redis_url: str) -> None:
    """A 401 and a broken body show in the requests' metric with their status."""
    async with running(redis_url, settings(model(fake()))) as gateway:
        assert (await gateway.chat("nonsense")).status_code == 401
        assert (await gateway.chat(temperature=9)).status_code == 400
        metrics = (await gateway.client.get("/metrics")).text
        for status in (400, 401):
            line = f'tollway_requests_total{{dialect="openai",model="",status="{status}"}} 1.0'
            assert line in metrics
