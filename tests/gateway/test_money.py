"""What is charged, to whom, and that it never passes the credit. Every test ends in an audit."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest

from policies.ledger.base import Limits
from tests.gateway.upstreams import answer, upstream
from tests.gateway_harness import (
    FREE,
    PROMPT_TOKENS,
    Gateway,
    fake,
    model,
    running,
    settings,
    status_of,
)

pytestmark = pytest.mark.anyio

NANO = 10**9
TEN_TOKENS = 10_000
"""What ten output tokens cost at 1 USD per million, in nano-dollars."""


def exactly(number: Any) -> int:
    """Return a JSON amount in USD as nano-dollars; its text has at most 9 decimals."""
    nano = Decimal(str(number)) * NANO
    assert nano == int(nano)
    return int(nano)


async def ask(gateway: Gateway, key: str | None = None, **body: Any) -> int:
    """Return the status of one small request."""
    return (await gateway.chat(key, **{"max_tokens": 10} | body)).status_code


async def test_a_thousand_requests_on_credit_for_forty(redis_url: str) -> None:
    """40 succeed, 960 get 402, the balance ends at zero and never was below it."""
    async with running(redis_url, settings(model(fake(tokens=60))), usd="0.0004") as gateway:
        seen = []

        async def watch() -> None:
            while True:
                balance = await gateway.ledger.balance("acct")
                assert balance is not None
                seen.append(balance.available_nanodollars)
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        request = gateway.request(max_tokens=10)
        replies = await asyncio.gather(*(gateway.exchange(request) for _ in range(1000)))
        statuses = Counter(status_of(reply) for reply in replies)
        watching.cancel()
        assert statuses == {200: 40, 402: 960}
        assert min(seen) >= 0
        balance = await gateway.audited()
        assert balance.available_nanodollars == 0
        assert balance.spent_nanodollars == 40 * TEN_TOKENS
        lines = await gateway.journal()
        assert len(lines) == 40
        assert {line.charge_nanodollars for line in lines} == {TEN_TOKENS}


@pytest.mark.parametrize(
    ("price", "markup", "usage"),
    [
        ({"prompt": "0.15", "completion": "0.6"}, "0.05", (7, 3, 0, 0)),
        ({"prompt": "0.000001", "completion": "0.000001"}, "0.0001", (7, 3, 0, 0)),
        ({"prompt": "3", "completion": "15", "cached": "0.3"}, "0.1234", (700, 3, 512, 0)),
        ({"prompt": "1", "completion": "2", "reasoning": "5"}, "0", (7, 30, 0, 25)),
        ({"prompt": "1", "completion": "2", "request": "0.001"}, "1", (7, 3, 0, 0)),
    ],
)
async def test_the_charge_is_usage_times_price_times_markup_rounded_up_once(
    redis_url: str, price: dict[str, str], markup: str, usage: tuple[int, int, int, int]
) -> None:
    """The same figure in the reply, the journal, the balance, the record and the metrics."""
    prompt, completion, cached, thought = usage
    report = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    exact = Fraction(price.get("request", "0")) + Fraction(1, 10**6) * (
        (prompt - cached) * Fraction(price["prompt"])
        + cached * Fraction(price.get("cached", price["prompt"]))
        + (completion - thought) * Fraction(price["completion"])
        + thought * Fraction(price.get("reasoning", price["completion"]))
    )
    charge = ceil(exact * (1 + Fraction(markup)) * NANO)
    async with upstream(answer(["w" * 6] * 2, usage=report)) as up:
        given = settings(model(up.endpoint("up", price=price), id="m"), markup=markup)
        async with running(redis_url, given) as gateway:
            body = {"model": "m", "max_tokens": 100}
            messages = [{"role": "user", "content": "x" * prompt}]
            whole = (await gateway.chat(**body, messages=messages)).json()
            streamed = await gateway.stream(**body, messages=messages)
            for told in (whole["usage"], streamed.chunks[-1]["usage"]):
                assert exactly(told["cost"]) == charge
                upstream_cost = exactly(told["cost_details"]["upstream_inference_cost"])
                assert abs(upstream_cost - exact * NANO) <= Fraction(1, 2)
            balance = await gateway.audited()
            assert balance.spent_nanodollars == 2 * charge
            lines = await gateway.journal()
            assert [line.charge_nanodollars for line in lines] == [charge, charge]
            assert {line.markup_bp for line in lines} == {int(Fraction(markup) * 10_000)}
            assert {line.flags for line in lines} == {()}
            record = await gateway.generation(whole["id"])
            assert record["charge_nanodollars"] == charge == exactly(record["total_cost"])
            assert record["cost_picodollars"] == exact * 10**12
            assert record["price_version"] == lines[0].price_version != ""
            charged = await gateway.metric('tollway_charge_nanodollars_total{model="m"}')
            assert charged == 2 * charge


async def test_missing_and_doubtful_usage_is_replaced_by_our_own_count(redis_url: str) -> None:
    """No report, or twice what was delivered: own count, flagged. Never nothing."""
    price = {"prompt": "1", "completion": "1"}
    given = settings(
        model(fake(price, tokens=8, usage="missing"), id="missing"),
        model(fake(price, tokens=8, usage="double"), id="double"),
    )
    async with running(redis_url, given) as gateway:
        for name, flag in (("missing", "usage_missing"), ("double", "usage_above_hold")):
            streamed = await gateway.stream(model=name, max_tokens=10)
            _ = await gateway.audited()
            line = (await gateway.journal())[-1]
            assert set(line.flags) == {flag, "own_count"}
            # The fake counts as it goes.
            assert line.tokens == {"prompt": PROMPT_TOKENS, "completion": 8}
            assert exactly(streamed.chunks[-1]["usage"]["cost"]) == line.charge_nanodollars
            assert line.charge_nanodollars == 1000 * (PROMPT_TOKENS + 8)


async def test_a_report_above_one_token_a_byte_is_not_believed(redis_url: str) -> None:
    """An upstream that reports thousands of tokens for a few bytes is billed by own count."""
    report = {"prompt_tokens": 7, "completion_tokens": 900}
    async with (
        upstream(answer(["12345678"], usage=report)) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        reply = (await gateway.chat(model="m", max_tokens=1000)).json()
        assert reply["usage"]["completion_tokens"] == 2
        _ = await gateway.audited()
        (line,) = await gateway.journal()
        assert set(line.flags) == {"usage_above_bytes", "own_count"}


async def test_the_markup_of_key_then_account_then_model_then_all_applies(redis_url: str) -> None:
    """The nearest one that is set counts, also where it is zero."""
    given = settings(
        model(fake(tokens=10), id="plain"),
        model(fake(tokens=10), id="marked", markup="0.3"),
        markup="0.1",
        accounts={"vip": {"markup": "0.2"}, "zero": {"markup": "0"}},
    )
    async with running(redis_url, given) as gateway:
        vip = await gateway.fund(account="vip")
        own = await gateway.fund(account="vip", markup_bp=5000)
        zero = await gateway.fund(account="zero")
        free_key = await gateway.fund(account="vip", markup_bp=0)
        expected = [
            (gateway.key, "plain", 1.1),
            (gateway.key, "marked", 1.3),
            (vip, "plain", 1.2),
            (vip, "marked", 1.2),
            (own, "marked", 1.5),
            (zero, "marked", 1.0),
            (free_key, "marked", 1.0),
        ]
        for key, name, factor in expected:
            reply = (await gateway.chat(key, model=name, max_tokens=10)).json()
            assert exactly(reply["usage"]["cost"]) == round(TEN_TOKENS * factor), (name, factor)
        for account in ("acct", "vip", "zero"):
            _ = await gateway.audited(account)


async def test_a_keys_own_limit_is_never_passed(redis_url: str) -> None:
    """``limit_usd`` bounds what the key has spent and holds together; the message says which."""
    async with running(redis_url, settings(model(fake(tokens=60)))) as gateway:
        key = await gateway.fund(limit_nanodollars=3 * TEN_TOKENS)
        statuses = Counter(await asyncio.gather(*(ask(gateway, key) for _ in range(20))))
        assert statuses[200] >= 1
        while await ask(gateway, key) == 200:
            statuses[200] += 1
        assert statuses[200] == 3
        reply = await gateway.chat(key, max_tokens=10)
        assert reply.status_code == 402
        error = reply.json()["error"]
        assert error["metadata"]["limit_source"] == "tollway_key_limit"
        assert "the key's spending limit" in error["message"]
        assert await ask(gateway) == 200  # another key of the account goes on
        assert (await gateway.audited()).spent_nanodollars == 4 * TEN_TOKENS


async def test_a_hold_that_fits_exactly_passes_and_one_nano_less_does_not(redis_url: str) -> None:
    """402 names what is needed, what is left and the shortfall, exactly."""
    async with running(redis_url, settings(model(fake(tokens=60))), usd="0.00001") as gateway:
        poor = await gateway.fund("0.000009999", account="poor")
        assert await ask(gateway) == 200
        assert (await gateway.audited()).available_nanodollars == 0
        reply = await gateway.chat(poor, max_tokens=10)
        assert reply.status_code == 402
        assert "x-generation-id" not in reply.headers
        error = reply.json()["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", 402)
        assert error["metadata"] == {
            "error_type": "payment_required",
            "limit_source": "tollway_credits",
            "required_nanodollars": 10_000,
            "available_nanodollars": 9_999,
            "shortfall_nanodollars": 1,
        }
        assert "short by 0.000000001 USD" in error["message"]
        assert (await gateway.audited("poor")).spent_nanodollars == 0


async def test_a_dear_candidate_is_dropped_where_credit_covers_the_cheap_one(
    redis_url: str,
) -> None:
    """The cheap endpoint serves, though it is second; the record says why the first did not."""
    dear = fake({"prompt": "0", "completion": "100"}, tokens=10) | {"provider": "dear"}
    cheap = fake(tokens=10) | {"provider": "cheap"}
    given = settings(model(dear, cheap, id="m", strategy="ordered"))
    async with running(redis_url, given, usd="0.00002") as gateway:
        reply = (await gateway.chat(model="m", max_tokens=10)).json()
        assert reply["provider"] == "cheap"
        record = await gateway.generation(reply["id"])
        assert record["held_nanodollars"] == TEN_TOKENS
        assert [r["reason"] for r in record["plan"]["rejections"]] == ["credit"]
        rich = await gateway.fund("1", account="rich")
        assert (await gateway.chat(rich, model="m", max_tokens=10)).json()["provider"] == "dear"
        assert await ask(gateway, model="m") == 200
        assert await ask(gateway, model="m") == 402
        _ = await gateway.audited()


async def test_failing_over_to_a_dear_endpoint_never_passes_the_hold(redis_url: str) -> None:
    """The hold covers the dearest candidate kept, so a failover needs no second look at credit."""
    cheap = fake(tokens=10, fail={"status": 500}) | {"provider": "cheap", "retries": 0}
    dear = fake({"prompt": "0", "completion": "3"}, tokens=10) | {"provider": "dear"}
    given = settings(model(cheap, dear, id="m", strategy="ordered"))
    async with running(redis_url, given, usd="0.00003") as gateway:
        reply = (await gateway.chat(model="m", max_tokens=10)).json()
        assert reply["provider"] == "dear"
        balance = await gateway.audited()
        assert (balance.available_nanodollars, balance.spent_nanodollars) == (0, 30_000)


async def test_free_models_pass_at_zero_credit_twenty_times_a_minute(redis_url: str) -> None:
    """A hold of 0 passes at a balance of 0; the account's free limit is named, with the wait."""
    given = settings(model(fake(FREE, tokens=2), id="free"), model(fake(tokens=2)))
    async with running(redis_url, given) as gateway:
        broke = await gateway.fund("0", account="broke")
        statuses = Counter([await ask(gateway, broke, model="free") for _ in range(20)])
        assert statuses == {200: 20}
        reply = await gateway.chat(broke, model="free")
        assert reply.status_code == 429
        assert 1 <= int(reply.headers["retry-after"]) <= 3
        assert reply.json()["error"]["metadata"]["limit"] == "account.free_rpm"
        assert await ask(gateway, broke) == 402
        assert await ask(gateway) == 200  # priced models and other accounts have no such limit
        assert await ask(gateway, model="free") == 200
        _ = await gateway.audited("broke")


async def test_limits_of_keys_and_accounts_answer_429_with_name_and_wait(redis_url: str) -> None:
    """Rpm and tpm of key and account: each refuses by its own name, and costs nothing."""
    given = settings(
        model(fake(tokens=2)),
        accounts={"slow": {"rpm": 3}, "small": {"tpm": 1000}},
    )
    async with running(redis_url, given) as gateway:
        keys = {
            "key.rpm": (await gateway.fund(limits=Limits(rpm=2)), 2),
            "key.tpm": (await gateway.fund(limits=Limits(tpm=1000)), 2),
            "account.rpm": (await gateway.fund(account="slow"), 3),
            "account.tpm": (await gateway.fund(account="small"), 2),
        }
        long = [{"role": "user", "content": "x" * 1900}]  # about 500 tokens with its frame
        for name, (key, passing) in keys.items():
            body = {"messages": long} if name.endswith("tpm") else {}
            for _ in range(passing):
                assert await ask(gateway, key, **body) == 200, name
            reply = await gateway.chat(key, **body)
            assert reply.status_code == 429, name
            assert reply.json()["error"]["metadata"]["limit"] == name
            assert name in reply.json()["error"]["message"]
            assert int(reply.headers["retry-after"]) >= 1
        for account in ("acct", "slow", "small"):
            _ = await gateway.audited(account)
        count = await gateway.metric('tollway_rejections_total{reason="rate_limit_exceeded"}')
        assert count == 4


async def test_concurrency_limits_count_open_requests_only(redis_url: str) -> None:
    """Two at once, the third is refused; when one ends there is room again."""
    given = settings(
        model(fake(tokens=2, fail={"how": "stall", "after_tokens": 1}), id="m"),
        accounts={"few": {"concurrency": 3}},
    )
    async with running(redis_url, given) as gateway:
        for account, limits, name, most in (
            ("acct", Limits(concurrency=2), "key.concurrency", 2),
            ("few", Limits(), "account.concurrency", 3),
        ):
            key = await gateway.fund(account=account, limits=limits)
            headers = {"Authorization": f"Bearer {key}"}
            body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
            open_streams = []
            for _ in range(most):
                request = gateway.client.build_request(
                    "POST", "/v1/chat/completions", json=body, headers=headers
                )
                open_streams.append(await gateway.client.send(request, stream=True))
            assert {stream.status_code for stream in open_streams} == {200}
            reply = await gateway.chat(key, model="m")
            assert reply.status_code == 429
            assert reply.json()["error"]["metadata"]["limit"] == name
            for stream in open_streams:
                await stream.aclose()
            _ = await gateway.audited(account)
            again = gateway.client.build_request(
                "POST", "/v1/chat/completions", json=body, headers=headers
            )
            stream = await gateway.client.send(again, stream=True)
            assert stream.status_code == 200
            await stream.aclose()
            _ = await gateway.audited(account)
