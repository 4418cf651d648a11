"""The ledger out of reach: nothing is given away, nothing is lost, and clients hear why."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway import wiring
from gateway.wiring import WorkerConfig
from tests.gateway.upstreams import Call, upstream
from tests.gateway_harness import PEPPER, Clock, fake, model, running, settings, until
from tests.valkey_server import ValkeyServer

pytestmark = pytest.mark.anyio


def is_ledger_refusal(reply: httpx.Response) -> bool:
    """Whether an answer is the 503 that tells to come back soon."""
    assert reply.status_code == 503, reply.text
    error = reply.json()["error"]
    assert error["metadata"]["error_type"] == "ledger_unavailable"
    assert "try again" in error["message"]
    return int(reply.headers["retry-after"]) >= 1


async def test_without_redis_new_requests_get_503_and_recover(own_valkey: ValkeyServer) -> None:
    """At authentication and at the reservation, whole and streamed; then as if nothing had been."""
    clock = Clock()
    given = settings(model(fake(tokens=2)))
    async with running(own_valkey.url, given, times=clock.times) as gateway:
        other = await gateway.fund(account="acct")
        assert (await gateway.chat()).status_code == 200
        before = await gateway.audited()
        own_valkey.kill()
        assert is_ledger_refusal(await gateway.chat(other))  # this key was never looked up
        assert is_ledger_refusal(await gateway.chat())  # this one is remembered
        assert is_ledger_refusal(await gateway.chat(stream=True))
        clock.advance(60)
        assert is_ledger_refusal(await gateway.chat())  # remembered for too long
        ready = await gateway.client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "unavailable"
        assert ready.json()["checks"]["redis"].startswith("unavailable")
        assert (await gateway.client.get("/health/live")).status_code == 200
        assert (await gateway.client.get("/v1/models")).status_code == 200
        own_valkey.start()
        assert (await gateway.chat(other)).status_code == 200
        assert (await gateway.client.get("/health/ready")).json()["status"] == "ok"
        after = await gateway.audited()
        assert after.spent_nanodollars == before.spent_nanodollars + 2_000


async def test_an_answer_ends_without_redis_and_is_settled_when_it_is_back(
    own_valkey: ValkeyServer,
) -> None:
    """The client sees a complete answer; the charge is repeated until the journal has it, once."""
    go_on = asyncio.Event()

    async def part(call: Call) -> None:
        await call.start()
        await call.word("some ")
        await go_on.wait()
        await call.finish(usage={"prompt_tokens": 7, "completion_tokens": 2})
        await call.end()

    async with (
        upstream(part) as up,
        running(own_valkey.url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        reading = asyncio.create_task(gateway.stream(model="m"))
        endpoint = gateway.worker.table.endpoint("m@up")
        await until(lambda: endpoint.first_token_ms is not None)
        own_valkey.kill()
        go_on.set()
        streamed = await reading
        assert streamed.done
        failures = 'tollway_ledger_seconds_count{op="settle"}'
        await until(lambda: at_least(gateway.metric(failures), 2))
        own_valkey.start()
        balance = await gateway.audited()
        (line,) = await gateway.journal()
        assert line.charge_nanodollars == balance.spent_nanodollars == 11_000
        record = await gateway.generation(line.id)
        assert record["outcome"] == "finished"


async def at_least(value: object, least: float) -> bool:
    """Whether an awaited number has reached a bound."""
    assert asyncio.iscoroutine(value)
    number: float = await value
    return number >= least


async def test_a_frozen_redis_is_left_after_its_time_and_keeps_no_hold(
    own_valkey: ValkeyServer,
) -> None:
    """A reservation that timed out may arrive all the same: it is given back, at last by expiry."""
    given = settings(
        model(fake(tokens=2)),
        redis={"timeout_s": 0.2},
        ledger={"hold_ttl_s": 0.5, "progress_s": 0.2, "sweep_s": 0.05},
    )
    async with running(own_valkey.url, given) as gateway:
        assert (await gateway.chat()).status_code == 200
        before = await gateway.audited()
        own_valkey.freeze()
        replies = await asyncio.gather(*(gateway.chat() for _ in range(5)))
        assert all(is_ledger_refusal(reply) for reply in replies)
        own_valkey.thaw()
        assert await gateway.audited() == before
        assert (await gateway.chat()).status_code == 200


async def test_holds_are_renewed_while_an_answer_lasts(own_valkey: ValkeyServer) -> None:
    """A stream that outlives the hold's time many times over is not captured by the sweep."""
    go_on = asyncio.Event()

    async def part(call: Call) -> None:
        await call.start()
        await call.word("some ")
        await go_on.wait()
        await call.finish(usage={"prompt_tokens": 7, "completion_tokens": 2})
        await call.end()

    ledger = {"hold_ttl_s": 0.3, "progress_s": 0.05, "sweep_s": 0.02}
    async with upstream(part) as up:
        given = settings(model(up.endpoint("up"), id="m"), ledger=ledger)
        async with running(own_valkey.url, given) as gateway:
            reading = asyncio.create_task(gateway.stream(model="m"))
            renewals = 'tollway_ledger_seconds_count{op="progress"}'
            await until(lambda: at_least(gateway.metric(renewals), 15))
            assert await gateway.metric("tollway_ledger_open_holds") == 1
            go_on.set()
            assert (await reading).done
            _ = await gateway.audited()
            assert [line.type for line in await gateway.ledger.journal_tail("acct")] == ["G", "S"]


async def test_a_worker_starts_while_redis_is_away_and_says_so() -> None:
    """It serves health from the start and is ready when the ledger answers."""
    server = ValkeyServer()
    given = WorkerConfig(settings(model(fake())), None, server.url, PEPPER, {})
    try:
        async with wiring.running(given) as worker:
            ready, checks = await worker.health.checks()
            assert not ready
            assert checks["redis"].startswith("unavailable")
            server.start()
            assert await worker.health.checks() == (True, {"redis": "ok"})
            _ = await worker.ledger.grant("g", "acct", 5)
            assert (await worker.ledger.balance("acct")).available_nanodollars == 5
    finally:
        server.remove()
