"""Rates: how exactly they are kept, and how they are corrected once the true count is known."""

from __future__ import annotations

import msgspec
import pytest
from redis.asyncio import Redis

from policies.ledger.base import (
    Checkpoint,
    HoldRequest,
    Limit,
    LimitExceeded,
    LimitKind,
    Limits,
    SettleRequest,
)
from policies.ledger.client import Ledger
from policies.ledger.shards import keys_of
from policies.ledger.sweeper import Sweeper

pytestmark = pytest.mark.anyio

HOUR_US = 3_600_000_000
NO_MONEY = HoldRequest("", "acme", "k1", 0)


def of_tokens(limit: int, period_us: int = HOUR_US) -> tuple[Limit, ...]:
    """A token rate so slow that the time a test takes does not matter."""
    return (Limit("t:k:k1:tpm", LimitKind.TOKENS, "key.tpm", limit, period_us),)


def of_requests(limit: int, period_us: int = HOUR_US) -> tuple[Limit, ...]:
    """A request rate."""
    return (Limit("t:k:k1:rpm", LimitKind.REQUESTS, "key.rpm", limit, period_us),)


async def ask(ledger: Ledger, hold_id: str, limits: tuple[Limit, ...], tokens: int = 0) -> None:
    """Reserves nothing but a place under the limits."""
    await ledger.reserve(
        msgspec.structs.replace(NO_MONEY, hold_id=hold_id, limits=limits, estimated_tokens=tokens)
    )


async def tat_us(redis: Redis, limit: Limit) -> int:
    """The theoretical arrival time of a limit, server microseconds."""
    value = await redis.hget(keys_of("acme").account("acme"), limit.field)
    assert value is not None
    return int(value)


@pytest.mark.parametrize("limit", [1, 7, 60, 999])
async def test_exactly_the_limit_passes_at_once_and_then_one_per_interval(
    ledger: Ledger, limit: int
) -> None:
    """The burst is the whole limit; the wait named is the time until one more fits."""
    limits = of_requests(limit, 24 * HOUR_US)
    for number in range(limit):
        await ask(ledger, f"r{number}", limits)
    with pytest.raises(LimitExceeded) as refused:
        await ask(ledger, "no", limits)
    interval_s = 24 * 3600 / limit
    assert refused.value.name == "key.rpm"
    assert interval_s - 5 < refused.value.retry_after_s <= interval_s


async def test_limit_refills_evenly_with_the_server_time(ledger: Ledger) -> None:
    """What was refused passes when the named wait is over, measured by the server."""
    limits = of_requests(2, 100_000)
    granted = 0
    waits_s = []
    for number in range(100_000):
        try:
            await ask(ledger, f"r{number}", limits)
            granted += 1
        except LimitExceeded as error:
            waits_s.append(error.retry_after_s)
        if granted == 6:
            break
    assert granted == 6
    assert waits_s
    assert all(0 < wait_s <= 0.05 for wait_s in waits_s)


async def test_estimate_is_replaced_by_the_true_count(ledger: Ledger, redis: Redis) -> None:
    """After settling, the limit stands where a request of the true size would have left it."""
    limits = of_tokens(1_000)
    await ask(ledger, "r1", limits, tokens=700)
    start = await tat_us(redis, limits[0]) - 700 * HOUR_US // 1_000
    await ledger.settle(SettleRequest("r1", "acme", 0, actual_tokens=123))
    assert await tat_us(redis, limits[0]) == start + 123 * HOUR_US // 1_000
    await ask(ledger, "r2", limits, tokens=870)
    with pytest.raises(LimitExceeded):
        await ask(ledger, "r3", limits, tokens=10)


async def test_settling_above_the_estimate_is_owed(ledger: Ledger, redis: Redis) -> None:
    """A request larger than thought makes the next ones wait, even beyond the limit."""
    limits = of_tokens(1_000)
    await ask(ledger, "r1", limits, tokens=10)
    start = await tat_us(redis, limits[0]) - 10 * HOUR_US // 1_000
    await ledger.settle(SettleRequest("r1", "acme", 0, actual_tokens=2_500))
    assert await tat_us(redis, limits[0]) == start + 2_500 * HOUR_US // 1_000
    with pytest.raises(LimitExceeded) as refused:
        await ask(ledger, "r2", limits)
    assert 1.5 * 3600 - 5 < refused.value.retry_after_s <= 1.5 * 3600


async def test_without_a_true_count_the_estimate_stands(ledger: Ledger, redis: Redis) -> None:
    """Unknown is not zero."""
    limits = of_tokens(1_000)
    await ask(ledger, "r1", limits, tokens=700)
    before = await tat_us(redis, limits[0])
    await ledger.settle(SettleRequest("r1", "acme", 0))
    assert await tat_us(redis, limits[0]) == before


async def test_void_gives_tokens_back_and_keeps_the_request_counted(
    ledger: Ledger, redis: Redis
) -> None:
    """A failed request used no tokens, but it was a request."""
    limits = of_tokens(1_000) + of_requests(2)
    await ask(ledger, "r1", limits, tokens=900)
    await ledger.void("r1", "acme")
    await ask(ledger, "r2", limits, tokens=900)
    await ledger.void("r2", "acme")
    with pytest.raises(LimitExceeded) as refused:
        await ask(ledger, "r3", limits, tokens=900)
    assert refused.value.name == "key.rpm"


@pytest.mark.parametrize(("charge", "left"), [(0, 1_000), (5, 300)])
async def test_sweep_gives_tokens_back_only_when_nothing_was_delivered(
    expiring_ledger: Ledger, charge: int, left: int
) -> None:
    """A captured request keeps its estimate, as nobody knows its true count."""
    limits = of_tokens(1_000)
    await expiring_ledger.grant("evt1", "acme", 100)
    await expiring_ledger.reserve(
        HoldRequest("r1", "acme", "k1", 10, estimated_tokens=700, limits=limits)
    )
    await expiring_ledger.progress([Checkpoint("r1", "acme", charge)])
    await Sweeper(expiring_ledger).run_once()
    await ask(expiring_ledger, "r2", limits, tokens=left)
    with pytest.raises(LimitExceeded):
        await ask(expiring_ledger, "r3", limits, tokens=30)


async def test_request_larger_than_its_limit_passes_on_a_full_bucket_only(ledger: Ledger) -> None:
    """It counts as the whole limit, or it could never run."""
    limits = of_tokens(1_000)
    await ask(ledger, "r1", limits, tokens=1_000_000)
    await ledger.void("r1", "acme")
    await ask(ledger, "r2", limits, tokens=1)
    with pytest.raises(LimitExceeded):
        await ask(ledger, "r3", limits, tokens=1_000_000)


async def test_of_several_limits_the_longest_wait_is_named(ledger: Ledger) -> None:
    """Coming back at the named time must help."""
    key = Limits(rpm=1).of_key("k1")
    limits = key + of_tokens(10)
    await ask(ledger, "r1", limits, tokens=10)
    with pytest.raises(LimitExceeded) as refused:
        await ask(ledger, "r2", limits, tokens=10)
    assert refused.value.name == "key.tpm"


async def test_hundred_million_tokens_a_minute_keep_their_fractions(
    ledger: Ledger, redis: Redis
) -> None:
    """A token of such a limit is 0.6 us; a request's tokens are rounded once, together."""
    limits = of_tokens(100_000_000, 60_000_000)
    await ask(ledger, "r1", limits)
    start = await tat_us(redis, limits[0])
    await ledger.settle(SettleRequest("r1", "acme", 0, actual_tokens=99_999_999))
    assert await tat_us(redis, limits[0]) == start + 59_999_999


def test_limit_below_one_is_refused() -> None:
    """A limit of nothing is a disabled key, not a rate."""
    with pytest.raises(ValueError, match=r"key\.rpm"):
        Limits(rpm=0).of_key("k1")
