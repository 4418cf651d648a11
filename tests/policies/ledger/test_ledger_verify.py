"""`verify` finds what was changed behind the ledger's back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from policies.ledger.base import HoldRequest, SettleRequest
from policies.ledger.client import Ledger
from policies.ledger.shards import keys_of

pytestmark = pytest.mark.anyio

KEYS = keys_of("acme")
ACCOUNT = KEYS.account("acme")

PLANTED: dict[str, Callable[[Redis], Awaitable[object]]] = {
    "available": lambda redis: redis.hincrby(ACCOUNT, "avail", 1),
    "held": lambda redis: redis.hincrby(ACCOUNT, "held", -1),
    "spent": lambda redis: redis.hincrby(ACCOUNT, "spent", 1),
    "granted": lambda redis: redis.hincrby(ACCOUNT, "granted", 1),
    "money moved from available to granted": lambda redis: redis.hset(
        ACCOUNT, mapping={"avail": 901, "granted": 1_001}
    ),
    "money moved from spent to available": lambda redis: redis.hset(
        ACCOUNT, mapping={"avail": 897, "spent": 3}
    ),
    "below zero": lambda redis: redis.hset(ACCOUNT, mapping={"avail": -1, "spent": 901}),
    "concurrency": lambda redis: redis.hincrby(ACCOUNT, "c", 1),
    "concurrency of a key": lambda redis: redis.hincrby(ACCOUNT, "c:k1", 1),
    "spending of a key": lambda redis: redis.hincrby(ACCOUNT, "l:k1", -1),
    "total granted": lambda redis: redis.hincrby(KEYS.totals, "granted", 1),
    "total held": lambda redis: redis.hincrby(KEYS.totals, "held", 1),
    "total spent": lambda redis: redis.hdel(KEYS.totals, "spent"),
    "a hold's record": lambda redis: redis.hdel(KEYS.holds, "r2"),
    "a hold's expiry": lambda redis: redis.zrem(KEYS.expiries, "r2"),
    "the account": lambda redis: redis.srem(KEYS.accounts, "acme"),
    "the account's hash": lambda redis: redis.delete(ACCOUNT),
    "the journal": lambda redis: redis.delete(KEYS.journal),
    "the journal's end": lambda redis: redis.xtrim(KEYS.journal, maxlen=1, approximate=False),
    "totals of an empty shard": lambda redis: redis.hset(
        keys_of("nobody").totals, mapping={"granted": 1}
    ),
}


@pytest.fixture
async def used(ledger: Ledger) -> Ledger:
    """A ledger with a grant, a charge of 7 and an open hold of 93."""
    await ledger.grant("evt1", "acme", 1_000)
    await ledger.reserve(HoldRequest("r1", "acme", "k1", 50))
    await ledger.reserve(HoldRequest("r2", "acme", "k1", 93))
    await ledger.settle(SettleRequest("r1", "acme", 7))
    return ledger


@pytest.mark.parametrize("what", PLANTED)
async def test_verify_finds_planted_corruption(used: Ledger, redis: Redis, what: str) -> None:
    """Every figure is checked against another source, so one that was touched shows."""
    assert (await used.verify()).ok
    await PLANTED[what](redis)
    report = await used.verify()
    assert not report.ok
    assert report.problems


async def test_verify_runs_beside_traffic_without_false_alarms(used: Ledger) -> None:
    """Each shard is read at one moment, so money in motion is not a problem."""

    async def traffic() -> None:
        for number in range(150):
            await used.reserve(HoldRequest(f"t{number}", "acme", "k1", 5))
            await used.settle(SettleRequest(f"t{number}", "acme", 1))

    busy = asyncio.create_task(traffic())
    while not busy.done():
        assert (await used.verify()).problems == ()
    await busy


async def test_verify_of_an_empty_ledger_is_fine(ledger: Ledger) -> None:
    """Nothing adds up to nothing."""
    assert (await ledger.verify()).as_dict() == {
        "ok": True,
        "accounts": 0,
        "granted_nanodollars": 0,
        "available_nanodollars": 0,
        "held_nanodollars": 0,
        "spent_nanodollars": 0,
        "problems": [],
    }
