"""Shards, the journal's readers and the janitor of generation records."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from policies.ledger.base import (
    HoldRequest,
    JournalLine,
    LedgerSettings,
    LedgerUnavailable,
    SettleRequest,
)
from policies.ledger.calls import Calls
from policies.ledger.client import Ledger
from policies.ledger.shards import SHARDS, keys_of, shard_of, slot_of, tag_of
from tests.contracts.ledger_contract import eventually

pytestmark = pytest.mark.anyio

NAMES = [f"account {number}" for number in range(12)]


def test_each_shard_has_its_block_of_slots() -> None:
    """Shards spread evenly over a cluster by construction."""
    assert [slot_of(tag_of(shard)) // 64 for shard in range(SHARDS)] == list(range(SHARDS))
    assert slot_of("123456789") == 0x31C3  # the specification's own example


async def test_slot_is_the_server_slot(redis: Redis) -> None:
    """Our arithmetic is the server's, braces and all."""
    calls = Calls(redis)
    try:
        await calls.command("CLUSTER", "KEYSLOT", "any")
    except LedgerUnavailable:
        await calls.aclose()
        pytest.skip("Redis 7.0 knows no slots outside a cluster")
    for name in NAMES:
        keys = keys_of(name)
        for key in (keys.account(name), keys.generation("r}1"), keys.journal):
            assert await calls.command("CLUSTER", "KEYSLOT", key) == slot_of(tag_of(shard_of(name)))

    await calls.aclose()


def test_accounts_spread_over_shards_and_stay_there() -> None:
    """The shard is a fixed function of the name."""
    assert len({shard_of(f"a{number}") for number in range(5_000)}) == SHARDS
    assert shard_of("default") == 0xE35E00DF % SHARDS


async def test_journal_of_all_accounts_is_in_order_of_time(ledger: Ledger) -> None:
    """The tail over all shards is one list by server time, cut at its old end."""
    for number, name in enumerate(NAMES * 2):
        await ledger.grant(f"evt{number}", name, number + 1)
    lines = await ledger.journal_tail(None, 20)
    assert [line.charge_nanodollars for line in lines] == list(range(5, 25))
    assert await ledger.journal_tail(None, 0) == []


async def test_journal_of_one_account_is_found_behind_its_neighbors(redis: Redis) -> None:
    """Batches are read until there are enough lines of that account."""
    other = next(name for name in map(str, range(100_000)) if shard_of(name) == shard_of("acme"))
    ledger = Ledger(redis, LedgerSettings(batch_lines=2))
    await ledger.start()
    for number in range(4):
        await ledger.grant(f"a{number}", "acme", 1)
    for number in range(9):
        await ledger.grant(f"o{number}", other, 1)
    assert [line.id for line in await ledger.journal_tail("acme", 3)] == ["a1", "a2", "a3"]
    assert (await ledger.verify()).ok
    await ledger.aclose()


async def test_journal_is_followed_from_now_on(ledger: Ledger) -> None:
    """A follower sees what is written after it started, each line once."""
    await ledger.grant("before", "acme", 1)
    seen: list[JournalLine] = []

    async def follow() -> None:
        async for line in ledger.journal_follow("acme"):
            seen.append(line)
            if len(seen) == 3:
                return

    follower = asyncio.create_task(follow())
    async with asyncio.timeout(10):
        number = 0
        while not seen:
            number += 1
            await ledger.grant(f"evt{number}", "acme", 1)
            await asyncio.sleep(0)
        await ledger.grant("late1", "acme", 1)
        await ledger.grant("late2", "acme", 1)
        await follower
    assert "before" not in [line.id for line in seen]
    assert len({line.id for line in seen}) == 3


async def test_janitor_keeps_the_newest_records_of_all_shards(redis: Redis) -> None:
    """The oldest go first, wherever they lie; a hot account is not cut short by its shard."""
    ledger = Ledger(redis, LedgerSettings(max_generations=10))
    await ledger.start()
    ids = []
    for number in range(30):
        name = NAMES[0] if number >= 12 else NAMES[number]
        ids.append((name, f"r{number}"))
        await ledger.void(f"r{number}", name)
    assert await ledger.trim_generations() == 20
    kept = [hold_id for name, hold_id in ids if await ledger.generation(name, hold_id) is not None]
    assert kept == [f"r{number}" for number in range(20, 30)]
    assert await ledger.trim_generations() == 0
    await ledger.aclose()


async def test_janitor_may_run_twice_at_once(redis: Redis) -> None:
    """Every replica may run it; together they remove no more than too many."""
    ledger = Ledger(redis, LedgerSettings(max_generations=5))
    await ledger.start()
    for number in range(40):
        await ledger.void(f"r{number}", NAMES[number % 12])
    removed = await asyncio.gather(ledger.trim_generations(), ledger.trim_generations())
    assert sum(removed) == 35
    await ledger.aclose()


async def is_forgotten(ledger: Ledger) -> bool:
    """Whether the record of `r1` has gone."""
    return await ledger.generation("acme", "r1") is None


async def test_expired_record_is_gone_and_its_name_too(redis: Redis) -> None:
    """After its time a record is forgotten, and nothing is left that grows."""
    ledger = Ledger(redis, LedgerSettings(generation_ttl_s=1))
    await ledger.start()
    await ledger.reserve(HoldRequest("r1", "acme", "k1", 0))
    await ledger.settle(SettleRequest("r1", "acme", 0))
    await eventually(lambda: is_forgotten(ledger))
    await eventually(ledger.trim_generations)
    assert await redis.llen(keys_of("acme").finished) == 0
    await ledger.aclose()
