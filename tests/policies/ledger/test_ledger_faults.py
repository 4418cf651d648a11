"""What the ledger does when Redis dies, freezes, forgets, or when callers give up."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.exceptions
from redis.asyncio import Redis

from policies.ledger.base import (
    Checkpoint,
    HoldRequest,
    LedgerUnavailable,
    Reservation,
    SettleRequest,
)
from policies.ledger.calls import FOREIGN_ERRORS, Calls
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from tests.contracts.ledger_contract import eventually
from tests.valkey_server import ValkeyServer

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def ledger_at(server: ValkeyServer, timeout_s: float = 2.0) -> AsyncIterator[Ledger]:
    """A started ledger of its own connections."""
    client = connect(server.url, timeout_s=timeout_s)
    ledger = Ledger(client, timeout_s=timeout_s)
    await ledger.start()
    yield ledger
    await ledger.aclose()
    await client.aclose()


async def commands_of(redis: Redis) -> dict[str, int]:
    """How often each command has run."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()}


async def test_reserve_and_settle_are_one_command_each(ledger: Ledger, redis: Redis) -> None:
    """One round trip before the first byte, one after the last."""
    await ledger.grant("evt1", "acme", 1_000)
    await redis.config_resetstat()
    await ledger.reserve(HoldRequest("r1", "acme", "k1", 10))
    await ledger.settle(SettleRequest("r1", "acme", 5))
    counts = await commands_of(redis)
    assert counts["fcall"] == 2
    sent_by_clients = {"hello", "ping", "multi", "exec", "function|load", "select"}
    assert not sent_by_clients & counts.keys()


async def test_calls_of_one_moment_share_a_write(redis: Redis) -> None:
    """Many waiting callers cost one send, and each gets its own reply."""
    calls = Calls(redis)
    await calls.command("PING")
    replies = await asyncio.gather(*(calls.command("ECHO", str(n)) for n in range(200)))
    assert replies == [str(n).encode() for n in range(200)]
    await calls.aclose()


async def test_cancelled_callers_never_leave_a_reply_for_others(redis: Redis) -> None:
    """CVE-2023-28858: after a storm of cancellations every caller still reads its own reply."""
    calls = Calls(redis)

    async def caller(number: int) -> bool:
        return bool(await calls.command("ECHO", f"reply {number}") == f"reply {number}".encode())

    for round_number in range(40):
        tasks = [asyncio.create_task(caller(round_number * 100 + n)) for n in range(50)]
        for _ in range(round_number % 6):
            await asyncio.sleep(0)
        for place, task in enumerate(tasks):
            if (place * 7 + round_number) % 5 < 3:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert set(map(type, results)) <= {bool, asyncio.CancelledError}
        assert False not in results
    assert await caller(-1)
    await calls.aclose()


async def test_cancelled_reservation_can_be_voided(ledger: Ledger) -> None:
    """Whether the hold was made or not, voiding its id leaves nothing held."""
    await ledger.grant("evt1", "acme", 10_000)
    for number in range(60):
        task = asyncio.create_task(ledger.reserve(HoldRequest(f"r{number}", "acme", "k1", 10)))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await ledger.void(f"r{number}", "acme")
    balance = await ledger.balance("acme")
    assert balance is not None
    assert (balance.available_nanodollars, balance.open_holds) == (10_000, 0)


async def test_close_ends_waiting_calls_and_leaves_no_task(own_valkey_server: ValkeyServer) -> None:
    """Nobody waits for ever, and no task outlives its owner."""
    before = asyncio.all_tasks()
    client = connect(own_valkey_server.url)
    calls = Calls(client)
    await calls.command("PING")
    own_valkey_server.freeze()
    waiting = [asyncio.create_task(calls.command("PING")) for _ in range(3)]
    await asyncio.sleep(0)
    await calls.aclose()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert set(map(type, results)) == {LedgerUnavailable}
    with pytest.raises(LedgerUnavailable):
        await calls.command("PING")
    own_valkey_server.thaw()
    await client.aclose()
    assert asyncio.all_tasks() == before


async def test_frozen_server_fails_in_time_and_applies_at_most_once(
    own_valkey_server: ValkeyServer,
) -> None:
    """A late server is unavailable within the time-out; what it then does, it does once."""
    async with ledger_at(own_valkey_server, timeout_s=0.3) as ledger:
        await ledger.grant("evt1", "acme", 1_000)
        own_valkey_server.freeze()
        start = time.monotonic()
        results = await asyncio.gather(
            *(ledger.reserve(HoldRequest(f"r{n}", "acme", "k1", 100)) for n in range(3)),
            *(ledger.grant("evt2", "acme", 50) for _ in range(3)),
            return_exceptions=True,
        )
        took = time.monotonic() - start
        own_valkey_server.thaw()
        assert set(map(type, results)) == {LedgerUnavailable}
        assert took < 0.9
        for n in range(3):
            assert isinstance(
                await ledger.reserve(HoldRequest(f"r{n}", "acme", "k1", 100)), Reservation
            )
        await ledger.grant("evt2", "acme", 50)
        balance = await ledger.balance("acme")
        assert balance is not None
        assert (balance.available_nanodollars, balance.held_nanodollars) == (750, 300)
        assert (await ledger.verify()).ok


async def test_killed_server_loses_nothing_that_was_acknowledged(
    own_valkey_server: ValkeyServer,
) -> None:
    """Kill -9 under load, then a restart: every answered call is there, the functions too."""
    async with ledger_at(own_valkey_server) as ledger:
        await ledger.grant("evt1", "acme", 1_000_000)
        acknowledged: list[str] = []

        async def work(number: int) -> None:
            for step in range(1_000):
                hold_id = f"r{number}.{step}"
                await ledger.reserve(HoldRequest(hold_id, "acme", "k1", 100))
                await ledger.settle(SettleRequest(hold_id, "acme", 7))
                acknowledged.append(hold_id)

        workers = [asyncio.create_task(work(number)) for number in range(8)]
        await eventually(lambda: len(acknowledged) >= 300)
        own_valkey_server.kill()
        results = await asyncio.gather(*workers, return_exceptions=True)
        assert set(map(type, results)) == {LedgerUnavailable}
        own_valkey_server.start()
        lines = {line.id for line in await ledger.journal_tail("acme", 10_000)}
        assert set(acknowledged) <= lines
        settled = await ledger.settle(SettleRequest(acknowledged[0], "acme", 7))
        assert (settled.duplicate, settled.charge_nanodollars) == (True, 7)
        assert (await ledger.verify()).ok


async def test_functions_survive_a_restart(own_valkey_server: ValkeyServer) -> None:
    """The library comes back with the data; nobody has to load it again."""
    async with ledger_at(own_valkey_server) as ledger:
        await ledger.grant("evt1", "acme", 10)
        own_valkey_server.stop()
        own_valkey_server.start()
        calls = Calls(connect(own_valkey_server.url))
        assert b"tollway1" in str(await calls.command("FUNCTION", "LIST")).encode()
        await calls.aclose()


async def test_lost_functions_are_loaded_again(ledger: Ledger, redis: Redis) -> None:
    """A server that came up empty gets the library with the first call."""
    await redis.function_flush()
    await ledger.grant("evt1", "acme", 10)
    assert (await ledger.reserve(HoldRequest("r1", "acme", "k1", 10))).available_nanodollars == 0


async def test_absent_server_is_unavailable(own_valkey_server: ValkeyServer) -> None:
    """No server, no money: every call says so."""
    async with ledger_at(own_valkey_server) as ledger:
        own_valkey_server.stop()
        for call in (
            ledger.ping(),
            ledger.reserve(HoldRequest("r1", "acme", "k1", 1)),
            ledger.settle(SettleRequest("r1", "acme", 1)),
            ledger.void("r1", "acme"),
            ledger.progress([Checkpoint("r1", "acme", 1)]),
            ledger.due(),
            ledger.grant("evt1", "acme", 1),
            ledger.balance("acme"),
            ledger.generation("acme", "r1"),
            ledger.trim_generations(),
            ledger.journal_tail(),
            ledger.verify(),
        ):
            with pytest.raises(LedgerUnavailable):
                await call
        own_valkey_server.start()
        await ledger.ping()


@pytest.mark.parametrize(
    "setting",
    [("maxmemory", "1"), ("min-replicas-to-write", "3")],
    ids=["out of memory", "no replica to write to"],
)
async def test_server_that_refuses_to_write_is_unavailable(
    own_valkey_server: ValkeyServer, setting: tuple[str, str]
) -> None:
    """A refusal by the server fails closed, and says why."""
    async with ledger_at(own_valkey_server) as ledger:
        await ledger.grant("evt1", "acme", 10)
        client = connect(own_valkey_server.url)
        await client.config_set(*setting)
        with pytest.raises(LedgerUnavailable, match="tollway1_reserve"):
            await ledger.reserve(HoldRequest("r1", "acme", "k1", 1))
        await client.config_set(setting[0], "0")
        await ledger.reserve(HoldRequest("r1", "acme", "k1", 1))
        await client.aclose()


def test_every_error_of_the_client_is_mapped() -> None:
    """A new class of the client library that slips through fails here."""
    raised = [
        one
        for _, one in inspect.getmembers(redis.exceptions, inspect.isclass)
        if issubclass(one, Exception) and one.__module__ == "redis.exceptions"
    ]
    assert len(raised) > 30
    assert [one for one in raised if not issubclass(one, FOREIGN_ERRORS)] == []


async def test_error_reply_reaches_only_its_caller(redis: Redis) -> None:
    """One bad command among good ones fails alone, and the connection goes on."""
    calls = Calls(redis)
    replies: list[object] = await asyncio.gather(
        calls.command("ECHO", "1"),
        calls.command("LPUSH", "only a key"),
        calls.command("ECHO", "2"),
        return_exceptions=True,
    )
    assert replies[::2] == [b"1", b"2"]
    assert isinstance(replies[1], LedgerUnavailable)
    await calls.aclose()


@pytest.mark.parametrize("url", ["embedded", "http://x", "redis+cluster://x:1"])
def test_unknown_address_is_refused(url: str) -> None:
    """The address must say how to connect."""
    with pytest.raises(ValueError, match="unix://"):
        _ = connect(url)
