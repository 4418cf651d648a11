"""Clients that leave: what is charged, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from backends.wire.chat import CHAT
from backends.wire.openai_request import decode_request
from gateway.auth import Caller
from gateway.event_stream import StreamReply
from gateway.ids import generation_id
from gateway.reply import Reply, offer
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


class Peer(Reply):
    """The other end of one request: it stops reading and leaves when told to, at an exact point."""

    def __init__(self) -> None:
        """Still there, and taking everything."""
        self.on_lost = None
        self.gone = asyncio.Event()
        self.sent: list[tuple[str, bytes]] = []
        self.stop_at: Callable[[bytes], bool] = lambda sent: False
        self.stopped = asyncio.Event()
        self.after_write: Callable[[], None] = lambda: None

    @property
    def lost(self) -> bool:
        """Whether it has left."""
        return self.gone.is_set()

    @property
    def full(self) -> bool:
        """Whether it has stopped reading: for good."""
        if self.stop_at(self.text):
            self.stopped.set()
        return self.stopped.is_set()

    @property
    def text(self) -> bytes:
        """Everything it was sent."""
        return b"".join(data for _, data in self.sent)

    @property
    def unsent_bytes(self) -> int:
        """Nothing: it had taken all of it."""
        return 0

    async def drain(self) -> None:
        """Wait until it leaves; nothing is read any more."""
        await self.gone.wait()

    def leave(self) -> None:
        """Leave, as the server says it."""
        self.gone.set()
        if self.on_lost is not None:
            self.on_lost()

    def open(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the head."""
        self.sent.append(("open", b""))

    def write(self, data: bytes) -> None:
        """Take a piece."""
        self.sent.append(("write", data))
        self.after_write()

    def end(self, data: bytes) -> None:
        """Take the last piece."""
        self.sent.append(("end", data))
        self.after_write()

    def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Take an answer that is complete."""
        self.sent.append(("whole", body))


def responder(gateway: Gateway, **body: Any) -> StreamReply:
    """Return the responder of a streamed request."""
    request = gateway.request(model="m", stream=True, **body).split(b"\r\n\r\n", 1)[1]
    answering = gateway.worker.answer(
        decode_request(request), CHAT, Caller("acct", "k", ()), "req-1"
    )
    assert isinstance(answering, StreamReply)
    return answering


async def respond(answering: StreamReply, peer: Peer) -> None:
    """Run a responder with this peer at the other end."""
    scope: Any = {}
    offer(scope, peer)
    await answering(scope, _nobody, _nobody)


async def _nobody(*given: Any) -> Any:
    raise AssertionError("answers go past ASGI's messages")


async def test_leaving_at_the_closing_chunk_pays_for_the_finished_answer(redis_url: str) -> None:
    """The answer was complete before its last chunk went out: its report is charged."""
    async with running(redis_url, settings(model(fake(tokens=5), id="m"))) as gateway:
        peer = Peer()
        peer.stop_at = lambda sent: sent.count(b'"content":') == 5
        task = asyncio.create_task(respond(responder(gateway), peer))
        await peer.stopped.wait()
        peer.leave()
        await task
        assert [kind for kind, _ in peer.sent].count("write") == 5
        assert (await gateway.audited()).spent_nanodollars == 5_000
        record = await left(gateway)
        assert record["outcome"] == "finished"
        assert [a["outcome"] for a in record["provider_responses"]] == ["ok"]
        assert all(a["latency"] >= 0 for a in record["provider_responses"])


async def test_a_client_that_left_before_its_request_began_costs_nothing(redis_url: str) -> None:
    """The responder ends quietly, and sends nothing."""
    async with running(redis_url, settings(model(fake(tokens=5), id="m"))) as gateway:
        peer = Peer()
        peer.gone.set()
        await asyncio.create_task(respond(responder(gateway), peer))
        assert peer.sent == []
        assert (await gateway.audited()).spent_nanodollars == 0


async def test_an_error_chunk_waits_for_nobody(redis_url: str) -> None:
    """The responder ends though its client does not read; the money was settled before."""
    failing = fake(tokens=5, fail={"how": "cut", "after_tokens": 2})
    async with running(redis_url, settings(model(failing, id="m"))) as gateway:
        peer = Peer()
        answering = responder(gateway)
        peer.after_write = lambda: peer.stopped.set() if peer.text.count(b"content") > 1 else None
        await respond(answering, peer)
        assert [kind for kind, data in peer.sent if b'"error"' in data] == ["end"]
        assert (await gateway.audited()).spent_nanodollars > 0
        assert len(gateway.worker.ticker) == 0


async def test_a_comment_that_is_due_at_the_end_is_not_sent(redis_url: str) -> None:
    """Comments come from the tick: none may follow the last chunk."""
    given = settings(model(fake(tokens=1), id="m"), server={"first_comment_ms": 1})
    clock = Clock()
    async with running(redis_url, given, times=clock.times) as gateway:
        peer = Peer()
        answering = responder(gateway)

        def tick() -> None:
            clock.advance(60)
            if len(peer.sent) < 50:
                answering.on_tick(clock.at_s)  # due at the worst moment, each time

        peer.after_write = tick
        await respond(answering, peer)
        kinds = [kind for kind, _ in peer.sent]
        assert (kinds[0], kinds[-1]) == ("open", "end")
        assert (kinds.count("open"), kinds.count("end")) == (1, 1)
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
        task = asyncio.create_task(respond(responder(gateway), peer))
        await until(lambda: b"12345678" in peer.text)
        task.cancel()
        await task
        _ = await gateway.audited()
        record = await left(gateway)
        assert (record["outcome"], record["cancelled"]) == ("broken", False)
        assert record["native_tokens_completion"] == 2


def test_generation_ids_do_not_repeat() -> None:
    """They name reservations for ever."""
    assert len({generation_id(1) for _ in range(10_000)}) == 10_000
