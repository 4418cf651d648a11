"""API keys and the first start."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from policies.ledger.base import LedgerUnavailable, Limits
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from policies.ledger.keys import FirstStart, KeyRequest, KeyStore, parse_key

pytestmark = pytest.mark.anyio

PEPPER = b"0123456789abcdef"


@pytest.fixture
async def store(redis: Redis) -> AsyncIterator[KeyStore]:
    """A key store with a pepper."""
    one = KeyStore(redis, PEPPER)
    yield one
    await one.aclose()


async def test_key_made_is_found_by_its_id_and_verified_by_its_secret(store: KeyStore) -> None:
    """What was asked for is what is kept."""
    request = KeyRequest("acme", "ci", Limits(1, 2, 3), 4_000, 5_000_000, 6)
    new = await store.create(request)
    assert re.fullmatch(r"tw_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}", new.text)
    parsed = parse_key(new.text)
    assert parsed is not None
    record = await store.get(parsed.key_id)
    assert record == new.record
    assert (record.account, record.name, record.limits) == ("acme", "ci", Limits(1, 2, 3))
    assert (record.limit_nanodollars, record.expires_us, record.markup_bp) == (4_000, 5_000_000, 6)
    assert store.verify(record, parsed.secret)
    assert not store.verify(record, parsed.secret[:-1] + ("0" if parsed.secret[-1] != "0" else "1"))


async def test_unlimited_key_has_no_limits_rather_than_zeros(store: KeyStore) -> None:
    """Absent is absent."""
    record = await store.get((await store.create(KeyRequest("acme"))).record.key_id)
    assert record is not None
    assert (record.limits, record.limit_nanodollars) == (Limits(), None)
    assert (record.expires_us, record.markup_bp) == (None, None)


async def test_another_pepper_verifies_nothing(store: KeyStore, redis: Redis) -> None:
    """A copy of the database alone does not let anyone in or check guesses."""
    new = await store.create(KeyRequest("acme"))
    parsed = parse_key(new.text)
    assert parsed is not None
    other = KeyStore(redis, PEPPER[::-1])
    assert not other.verify(new.record, parsed.secret)
    await other.aclose()


async def test_key_itself_is_nowhere_but_in_its_text(store: KeyStore, redis: Redis) -> None:
    """Not in Redis, not in a repr."""
    new = await store.create(KeyRequest("acme"))
    parsed = parse_key(new.text)
    assert parsed is not None
    stored = [await redis.dump(key) for key in await redis.keys("*")]
    assert not any(parsed.secret.encode() in (value or b"") for value in stored)
    for shown in (repr(new), repr(parsed), repr(new.record), repr(store)):
        assert parsed.secret not in shown
        assert new.record.digest not in shown


async def test_revoked_key_is_kept_but_not_active(store: KeyStore) -> None:
    """A revoked key is disabled for good; an unknown one cannot be revoked."""
    new = await store.create(KeyRequest("acme", expires_us=100))
    assert new.record.is_active(99)
    assert not new.record.is_active(100)
    assert await store.revoke(new.record.key_id)
    record = await store.get(new.record.key_id)
    assert record is not None
    assert not record.is_active(0)
    assert not await store.revoke("000000000000")
    assert await store.get("000000000000") is None


async def test_list_is_in_order_of_creation(store: KeyStore) -> None:
    """All keys, or those of one account."""
    made = [(await store.create(KeyRequest(name))).record for name in ("a", "b", "a")]
    assert await store.list() == made
    assert await store.list("a") == [made[0], made[2]]


def test_short_pepper_is_refused() -> None:
    """A guessable pepper protects nothing."""
    client = connect("redis://localhost")
    with pytest.raises(ValueError, match="16 bytes"):
        KeyStore(client, b"short")


@given(st.text(max_size=90))
def test_no_made_up_text_is_a_key(text: str) -> None:
    """Shape and checksum refuse it without asking Redis."""
    assert parse_key(text) is None
    assert parse_key(f"tw_{text}") is None


async def test_one_wrong_character_is_noticed(store: KeyStore) -> None:
    """The checksum finds every single mistyped character."""
    text = (await store.create(KeyRequest("acme"))).text
    for place in range(3, len(text)):
        wrong = "Z" if text[place] != "Z" else "Y"
        assert parse_key(text[:place] + wrong + text[place + 1 :]) is None
    for near in (f"{text} ", f" {text}", f"{text}\n", text.lower(), text[:-1], f"{text}0", ""):
        assert parse_key(near) is None


async def test_exactly_one_first_start_wins(redis: Redis, ledger: Ledger) -> None:
    """Twenty processes at once: one dollar, one key, given to one of them."""
    stores = [KeyStore(redis, PEPPER) for _ in range(20)]
    given_out = await asyncio.gather(*(one.first_start(ledger) for one in stores))
    (winner,) = [one for one in given_out if one is not None]
    assert [one.key_id for one in await stores[0].list()] == [winner.record.key_id]
    balance = await ledger.balance("default")
    assert balance is not None
    assert balance.granted_nanodollars == 1_000_000_000
    assert await stores[0].first_start(ledger) is None
    parsed = parse_key(winner.text)
    assert parsed is not None
    assert stores[0].verify(winner.record, parsed.secret)
    for one in stores:
        await one.aclose()


async def test_first_start_that_died_half_way_is_repeated_whole(
    store: KeyStore, ledger: Ledger, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grant and key without the marker: the next start gives one dollar and one key in all."""
    original = store._calls.command

    async def dies_before_the_marker(*command: str | bytes | int) -> object:
        if command[:2] == ("SET", "first_start"):
            raise LedgerUnavailable("killed")
        return await original(*command)

    monkeypatch.setattr(store._calls, "command", dies_before_the_marker)
    for _ in range(3):
        with pytest.raises(LedgerUnavailable):
            await store.first_start(ledger, FirstStart(credit_nanodollars=5))
    monkeypatch.undo()
    won = await store.first_start(ledger, FirstStart(credit_nanodollars=5))
    assert won is not None
    assert [one.key_id for one in await store.list()] == [won.record.key_id]
    assert len(await redis.keys("key:*")) == 1
    balance = await ledger.balance("default")
    assert balance is not None
    assert balance.available_nanodollars == 5
