"""Clients that leave: what is charged, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from backends.wire.openai_request import decode_request
from gateway.auth import Caller
from gateway.ids import generation_id
from tests.gateway.upstreams import Call, answer, refusal, silence, upstream
from tests.gateway_harness import (
    PROMPT_TOKENS,
    Clock,
    Gateway,
    Wire,
    fake,
    model,
    running,
    settings,
    until,
)
from tests.valkey_server import ValkeyServer

pytestmark = pytest.mark.anyio


async def left(gateway: Gateway) -> dict[str, Any]:
    """Wait until the only request is over; return its record."""
    await until(lambda: len(gateway.worker.ticker) == 0)
    assert {endpoint.in_flight for endpoint in gateway.worker.table.endpoints} == {0}
    (record,) = [await gateway.generation(line) for line in await finished_ids(gateway)]
    return record


async def finished_ids(gateway: Gateway) -> list[str]:
    """Return the ids of all finished requests."""
    calls = gateway.ledger._background
    keys = await until(lambda: calls.command("KEYS", "*g:gen-*"))
    return [key.decode().rpartition("g:")[2] for key in keys]


async def start(gateway: Gateway, **body: Any) -> Wire:
    """Send a chat request on a connection of its own."""
    wire = await gateway.connect()
    wire.writer.write(gateway.request(model="m", **body))
    return wire


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_in_mid_answer_pays_prompt_and_delivered(
    redis_url: str, stream: bool
) -> None:
    """The upstream is closed at once; the charge is the own count of both parts, no more."""
    async with (
        upstream(silence("12345678", "12345678")) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        wire = await start(gateway, stream=stream, max_tokens=1000)
        (call,) = await until(lambda: up.calls)
        if stream:
            await wire.read_until(b"12345678")
            await wire.read_until(b"12345678")
        else:
            await until(lambda: delivered(gateway) == 16)
        await wire.close()
        await call.gone.wait()
        balance = await gateway.audited()
        record = await left(gateway)
        (line,) = await gateway.journal()
        assert line.tokens == {"prompt": PROMPT_TOKENS, "completion": 16 // 4}
        assert (
            line.charge_nanodollars == PROMPT_TOKENS * 1000 + 4 * 2000 == balance.spent_nanodollars
        )
        assert {"cut", "own_count"} == set(line.flags)
        assert (record["outcome"], record["cancelled"]) == ("client_cut", True)


def delivered(gateway: Gateway) -> int:
    """Return how many bytes the only open request has delivered."""
    cashier = gateway.worker.dispatcher._parts.cashier
    return sum(exchange.delivered.total_bytes for exchange in cashier._open.values())


async def test_a_client_that_leaves_before_any_acceptance_pays_nothing(redis_url: str) -> None:
    """The upstream had the request, but had not said yes."""
    async with (
        upstream(silence(headers=False)) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        wire = await start(gateway)
        (call,) = await until(lambda: up.calls)
        await wire.close()
        await call.gone.wait()
        assert (await gateway.audited()).spent_nanodollars == 0
        record = await left(gateway)
        assert (record["outcome"], record["charge_nanodollars"]) == ("failed", 0)
        assert await gateway.journal() == []
        line = 'tollway_attempts_total{model="m",outcome="abandoned",provider="up"}'
        assert await gateway.metric(line) == 1


async def test_a_client_that_leaves_after_acceptance_pays_the_prompt(redis_url: str) -> None:
    """The prompt even when nothing was delivered."""
    async with (
        upstream(silence()) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        wire = await start(gateway)
        (call,) = await until(lambda: up.calls)
        cashier = gateway.worker.dispatcher._parts.cashier
        await until(lambda: [e for e in cashier._open.values() if e.accepted])
        await wire.close()
        await call.gone.wait()
        _ = await gateway.audited()
        (line,) = await gateway.journal()
        assert line.tokens == {"prompt": PROMPT_TOKENS, "completion": 0}
        assert line.charge_nanodollars == PROMPT_TOKENS * 1000


async def test_a_client_that_leaves_during_a_back_off_pays_nothing_and_waits_for_nothing(
    redis_url: str,
) -> None:
    """The pause between two tries ends with the client; no further try is made."""
    async with (
        upstream(refusal(429, Retry_After="5"), answer()) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        wire = await start(gateway)
        endpoint = gateway.worker.table.endpoint("m@up")
        await until(lambda: up.finished == 1 and endpoint.in_flight == 0)
        await wire.close()
        assert (await gateway.audited()).spent_nanodollars == 0
        assert (await left(gateway))["outcome"] == "failed"
        assert len(up.calls) == 1


async def test_an_attempt_that_failed_leaves_no_count_behind(redis_url: str) -> None:
    """Running usage of a failed attempt is not charged to the answer that follows it."""

    async def thought_and_broke(call: Call) -> None:
        await call.start()
        usage = {"prompt_tokens": 7, "completion_tokens": 5000}
        await call.event({"choices": [], "usage": usage})

    async with (
        upstream(thought_and_broke) as first,
        upstream(silence("x" * 400)) as second,
    ):
        endpoints = [first.endpoint("first", retries=0), second.endpoint("second")]
        given = settings(model(*endpoints, id="m", strategy="ordered"))
        async with running(redis_url, given) as gateway:
            wire = await start(gateway, stream=True)
            await wire.read_until(b"xxxx")
            await wire.close()
            _ = await gateway.audited()
            (line,) = await gateway.journal()
            assert line.tokens["completion"] == 100


class Peer:
    """The other end of one ASGI request: it leaves when told to, at an exact point."""

    def __init__(self) -> None:
        """Still there, and taking everything."""
        self.gone = asyncio.Event()
        self.sent: list[Any] = []
        self.stop_at: Callable[[Any], bool] = lambda message: False
        self.stopped = asyncio.Event()

    async def receive(self) -> Any:
        """Say that the client left, once it has."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a message; at the chosen one stop reading for good."""
        if self.stop_at(message):
            self.stopped.set()
            await asyncio.Event().wait()
        self.sent.append(message)


def responder(gateway: Gateway, **body: Any) -> Any:
    """Return the ASGI responder of a streamed request."""
    request = gateway.request(model="m", stream=True, **body).split(b"\r\n\r\n", 1)[1]
    return gateway.worker.answer(decode_request(request), Caller("acct", "k", ()), "req-1")


async def test_leaving_at_the_closing_chunk_pays_for_the_finished_answer(redis_url: str) -> None:
    """The answer was complete before its last chunk went out: its report is charged."""
    async with running(redis_url, settings(model(fake(tokens=5), id="m"))) as gateway:
        peer = Peer()
        peer.stop_at = lambda message: message.get("more_body") is False
        task = asyncio.create_task(responder(gateway)({}, peer.receive, peer.send))
        await peer.stopped.wait()
        peer.gone.set()
        await task
        assert (await gateway.audited()).spent_nanodollars == 5_000
        record = await left(gateway)
        assert record["outcome"] == "finished"
        assert [a["outcome"] for a in record["provider_responses"]] == ["ok"]
        assert all(a["latency"] >= 0 for a in record["provider_responses"])


async def test_leaving_while_an_error_is_written_is_no_fault(redis_url: str) -> None:
    """The responder ends quietly, and nothing is charged."""
    given = settings(model(fake(fail={"status": 500}), id="m"))
    async with running(redis_url, given) as gateway:
        peer = Peer()
        peer.stop_at = lambda message: message["type"] == "http.response.start"
        task = asyncio.create_task(responder(gateway)({}, peer.receive, peer.send))
        await peer.stopped.wait()
        peer.gone.set()
        await task
        assert (await gateway.audited()).spent_nanodollars == 0


async def test_an_error_chunk_that_nobody_reads_is_given_up(redis_url: str) -> None:
    """When its connection is cut, the responder ends; the money was settled before."""
    failing = fake(tokens=5, fail={"how": "cut", "after_tokens": 2})
    async with running(redis_url, settings(model(failing, id="m"))) as gateway:
        peer = Peer()
        peer.stop_at = lambda message: b'"error"' in message.get("body", b"")
        task = asyncio.create_task(responder(gateway)({}, peer.receive, peer.send))
        await peer.stopped.wait()
        assert (await gateway.audited()).spent_nanodollars > 0
        peer.gone.set()
        await task
        assert len(gateway.worker.ticker) == 0


async def test_a_comment_that_is_due_at_the_end_is_not_sent(redis_url: str) -> None:
    """Comments come from another task: none may follow the last chunk."""
    given = settings(model(fake(tokens=1), id="m"), server={"first_comment_ms": 1})
    clock = Clock()
    async with running(redis_url, given, times=clock.times) as gateway:
        peer = Peer()
        answering = responder(gateway)
        real_send = peer.send

        async def send(message: Any) -> None:
            await real_send(message)
            clock.advance(60)
            answering.on_tick(clock.at_s)  # due at the worst moment, each time

        await answering({}, peer.receive, send)
        await gateway.worker.background.finish()
        bodies = [m for m in peer.sent if m["type"] == "http.response.body"]
        assert [m["more_body"] for m in bodies].index(False) == len(bodies) - 1
        assert sum(m["type"] == "http.response.start" for m in peer.sent) == 1
        _ = await gateway.audited()


async def test_leaving_during_the_reservation_gives_the_hold_back(own_valkey: ValkeyServer) -> None:
    """Whether it was held or not is unknown then; it is void soon after, not a minute later."""
    async with running(own_valkey.url, settings(model(fake(tokens=5), id="m"))) as gateway:
        assert (await gateway.chat(model="m")).status_code == 200  # the key is known now
        before = await gateway.audited()
        own_valkey.freeze()
        wire = await start(gateway)
        await until(lambda: len(gateway.worker.ticker) == 1)
        await wire.close()
        await until(lambda: len(gateway.worker.ticker) == 0)
        own_valkey.thaw()
        await gateway.worker.background.finish()
        assert await gateway.audited() == before


async def test_two_hundred_clients_leave_at_random_and_nothing_stays_behind(redis_url: str) -> None:
    """No hold, no task, no request in flight remains, and nobody pays above the whole answer."""
    random_points = random.Random(7)
    price = {"prompt": "1", "completion": "1"}
    given = settings(model(fake(price, tokens=30, first_token_ms=2, token_ms=1), id="m"))
    async with running(redis_url, given) as gateway:
        assert (await gateway.chat(model="m")).status_code == 200
        _ = await gateway.audited()
        baseline = len(asyncio.all_tasks())

        async def leave(stream: bool, after_bytes: int, yields: int) -> None:
            wire = await start(gateway, stream=stream, max_tokens=30)
            for _ in range(yields):
                await asyncio.sleep(0)
            if after_bytes:
                _ = await wire.reader.read(after_bytes)
            await wire.close()

        plans = [
            (
                random_points.random() < 0.8,
                random_points.choice((0, 0, 100, 1000, 3000, 9000)),
                random_points.randrange(200),
            )
            for _ in range(200)
        ]
        await asyncio.gather(*(leave(*plan) for plan in plans))
        await until(lambda: len(gateway.worker.ticker) == 0)
        _ = await gateway.audited()
        lines = await gateway.journal()
        assert len({line.id for line in lines}) == len(lines)
        most = max(line.tokens["prompt"] for line in lines) * 1000 + 30 * 1000
        assert max(line.charge_nanodollars for line in lines) <= most
        assert gateway.worker.table.endpoint("m@fake").in_flight == 0
        await until(lambda: len(asyncio.all_tasks()) <= baseline)
        assert (await gateway.chat(model="m")).status_code == 200


async def test_a_worker_that_is_stopped_by_force_settles_what_it_cut(redis_url: str) -> None:
    """Cancelled by the server (not by the client), the answer counts as broken by us."""
    async with (
        upstream(silence("12345678")) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        peer = Peer()
        task = asyncio.create_task(responder(gateway)({}, peer.receive, peer.send))
        await until(lambda: any(b"12345678" in m.get("body", b"") for m in peer.sent))
        task.cancel()
        await task
        _ = await gateway.audited()
        record = await left(gateway)
        assert (record["outcome"], record["cancelled"]) == ("broken", False)
        assert record["native_tokens_completion"] == 2


def test_generation_ids_do_not_repeat() -> None:
    """They name reservations for ever."""
    assert len({generation_id(1) for _ in range(10_000)}) == 10_000
