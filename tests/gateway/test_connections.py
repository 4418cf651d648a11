"""Connections: reused, pipelined, not read from, and open while a worker stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from gateway import server
from gateway.server import Connection
from gateway.settings import Settings
from policies.charging import BYTES_PER_TOKEN
from tests.gateway.upstreams import Call, Upstream, answer, silence, upstream
from tests.gateway_harness import (
    Clock,
    Gateway,
    Wire,
    fake,
    model,
    read_events,
    running,
    settings,
    status_of,
    until,
)

pytestmark = pytest.mark.anyio

BIG = "x" * 10_000
SLOW_S = 0.3
"""A reader is looked at every hundredth of a second then; what it is judged by is our clock."""

PATIENT = {"stall_ms": 10**9, "total_ms": 10**9}
"""Of the upstream: only the reader's time counts where a test moves the clock."""


async def endless(call: Call) -> None:
    """Say more than any socket holds, until the gateway leaves."""
    await call.start()
    with contextlib.suppress(OSError):
        while not call.gone.is_set():
            await call.word(BIG)


async def read_answer(wire: Wire) -> tuple[int, bytes]:
    """Read one answer of a connection that stays open."""
    head = (await wire.read_until(b"\r\n\r\n")).lower()
    if b"content-length: " in head:
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return status_of(head), await wire.reader.readexactly(length)
    body = b""
    while size := int(await wire.read_until(b"\r\n"), 16):
        body += await wire.reader.readexactly(size)
        _ = await wire.reader.readexactly(2)
    _ = await wire.reader.readexactly(2)
    return status_of(head), body


@asynccontextmanager
async def asking(gateway: Gateway) -> AsyncIterator[tuple[socket.socket, Connection]]:
    """Give a socket that holds little and the gateway's end of it."""
    with contextlib.closing(socket.socket()) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", gateway.port))
        (connection,) = await until(lambda: [*gateway.server.server_state.connections])
        ours = connection.transport.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        yield raw, connection


@asynccontextmanager
async def reader(gateway: Gateway, **body: Any) -> AsyncIterator[tuple[socket.socket, Connection]]:
    """Ask on such a socket, for more than it holds."""
    async with asking(gateway) as (raw, connection):
        request = gateway.request(model="m", **{"max_tokens": 16_000} | body)
        await asyncio.get_running_loop().sock_sendall(raw, request)
        await until(lambda: connection.flow.write_paused)
        yield raw, connection


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock for the worker and for its connections."""
    clock = Clock()
    monkeypatch.setattr(server, "build", partial(server.build, times=clock.times))
    return clock


def slow(up: Upstream) -> Settings:
    """Settings in which only the reader's time counts."""
    endpoint = up.endpoint("up", timeouts=PATIENT)
    return settings(model(endpoint, id="m"), server={"slow_reader_s": SLOW_S})


async def stops(gateway: Gateway, clock: Clock) -> None:
    """Let time pass until the gateway has looked by itself and has cut the connection."""

    def gone() -> bool:
        clock.advance(SLOW_S)
        return not gateway.server.server_state.connections

    await until(gone)


async def test_a_client_that_stops_reading_is_cut_and_pays_what_it_took(
    redis_url: str, clock: Clock
) -> None:
    """After ``slow_reader_s`` in which its socket took nothing: closed, settled as a client cut."""
    async with (
        upstream(endless) as up,
        running(redis_url, slow(up), times=clock.times) as gateway,
        reader(gateway, stream=True, max_tokens=100_000) as (raw, connection),
    ):
        clock.advance(SLOW_S * 0.9)  # the stall clock stands still while nobody reads
        await gateway.worker.ticker.tick()
        assert connection.flow.write_paused
        assert not connection.transport.is_closing()
        (exchange,) = gateway.worker.dispatcher._parts.cashier._open.values()
        written = exchange.delivered.total_bytes
        unsent = connection.transport.get_write_buffer_size()
        assert 0 < unsent < written
        await stops(gateway, clock)
        await up.calls[0].gone.wait()
        balance = await gateway.audited()
        (line,) = await gateway.journal()
        assert line.charge_nanodollars == balance.spent_nanodollars > 0
        assert "cut" in line.flags
        record = await gateway.generation(line.id)
        assert (record["outcome"], record["cancelled"]) == ("client_cut", True)
        taken = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await asyncio.get_running_loop().sock_recv(raw, 65536):
                taken += piece
        assert not taken.endswith(b"0\r\n\r\n")  # what it reads now is no complete answer
        assert line.tokens["completion"] * BYTES_PER_TOKEN <= written - unsent


async def test_a_client_that_reads_steadily_is_never_cut_however_slow(
    redis_url: str, clock: Clock
) -> None:
    """A little in most of the time allowed, again and again: any byte taken starts it anew."""
    async with (
        upstream(endless) as up,
        running(redis_url, slow(up), times=clock.times) as gateway,
        reader(gateway, stream=True) as (raw, connection),
    ):
        for _ in range(12):
            before = server.unread_bytes(connection.transport)

            async def took(before: int = before) -> bool:
                _ = await asyncio.get_running_loop().sock_recv(raw, 2048)
                return server.unread_bytes(connection.transport) != before

            await until(took)
            clock.advance(SLOW_S * 0.6)
            connection.look()
            await gateway.worker.ticker.tick()
            assert connection in gateway.server.server_state.connections
            assert not connection.transport.is_closing()
        await stops(gateway, clock)
        _ = await gateway.audited()


async def test_a_whole_answer_that_nobody_reads_is_not_kept_for_ever(
    redis_url: str, clock: Clock
) -> None:
    """The last write is waited for by nobody, so the connection itself sees that it is stuck."""
    async with (
        upstream(answer([BIG] * 1_000)) as up,
        running(redis_url, slow(up), times=clock.times) as gateway,
        reader(gateway) as (_, connection),
    ):
        await gateway.settled()
        assert connection.transport.get_write_buffer_size() > 1_000_000
        await stops(gateway, clock)
        assert connection.transport.get_write_buffer_size() == 0


async def test_the_end_of_an_answer_that_nobody_reads_is_not_kept_for_ever(
    redis_url: str, clock: Clock
) -> None:
    """However little is left: too little for anybody to have been told to wait."""
    async with (
        upstream(answer([BIG] * 2)) as up,
        running(redis_url, slow(up), times=clock.times) as gateway,
        asking(gateway) as (raw, connection),
    ):
        request = gateway.request(model="m", max_tokens=16_000)
        await asyncio.get_running_loop().sock_sendall(raw, request)
        await until(connection.transport.get_write_buffer_size)
        await gateway.settled()
        assert not connection.flow.write_paused
        await stops(gateway, clock)


async def test_a_connection_is_reused_after_every_kind_of_error(redis_url: str) -> None:
    """400, 401, 404, 405, 402, 502 and an in-band error leave the connection usable."""
    given = settings(
        model(fake(tokens=2)),
        model(fake(fail={"status": 401}), id="down"),
        model(fake(tokens=5, fail={"how": "cut", "after_tokens": 2}), id="cut"),
    )
    async with running(redis_url, given) as gateway:
        poor = await gateway.fund("0", account="poor")
        wire = await gateway.connect()
        bare = b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        expected = [
            (gateway.request(close=False, temperature=9), 400),
            (gateway.request("nonsense", close=False), 401),
            (b"GET /nowhere" + bare, 404),
            (b"DELETE /v1/chat/completions" + bare, 405),
            (gateway.request(poor, close=False), 402),
            (gateway.request(close=False, model="down"), 502),
            (gateway.request(close=False, model="cut", stream=True), 200),
            (gateway.request(close=False), 200),
        ]
        for request, status in expected:
            wire.writer.write(request)
            assert (await read_answer(wire))[0] == status, request
        await wire.close()
        _ = await gateway.audited()


def body_of(request: bytes) -> bytes:
    """Return what follows the head."""
    return request.partition(b"\r\n\r\n")[2]


async def test_pipelined_requests_are_answered_in_order(redis_url: str) -> None:
    """Three requests in one write: three answers, streams among them, one after another."""
    async with running(redis_url, settings(model(fake(tokens=2)))) as gateway:
        wire = await gateway.connect()
        wire.writer.write(
            gateway.request(close=False, stream=True)
            + gateway.request(close=False, model="unknown")
            + gateway.request(close=False)
        )
        first, second, third = [await read_answer(wire) for _ in range(3)]
        assert read_events(first[1])[-1] == "[DONE]"
        assert (second[0], third[0]) == (400, 200)
        await wire.close()
        _ = await gateway.audited()
        assert len(await gateway.journal()) == 2


async def test_a_client_that_pipelines_and_leaves_ends_the_request_that_is_answered(
    redis_url: str,
) -> None:
    """The second request on the connection does not hide that the client has left the first."""

    async def slowly(call: Call) -> None:
        await call.start()
        with contextlib.suppress(OSError):
            while not call.gone.is_set():
                await call.word("words ")
                await asyncio.sleep(0.001)

    async with (
        upstream(slowly) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        wire = await gateway.connect()
        request = gateway.request(model="m", close=False, stream=True)
        wire.writer.write(request + request)
        await wire.read_until(b"words")
        wire.writer.transport.abort()
        await asyncio.wait_for(up.calls[0].gone.wait(), 10)
        assert (await gateway.audited()).spent_nanodollars > 0
        assert len(up.calls) == 1
        (line,) = await gateway.journal()
        record = await gateway.generation(line.id)
        assert (record["outcome"], record["cancelled"]) == ("client_cut", True)


async def test_a_client_that_asks_again_later_and_leaves_is_noticed(redis_url: str) -> None:
    """While its second request waits nothing is read, so that its end has to be looked for."""
    async with (
        upstream(silence("words ")) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        wire = await gateway.connect()
        wire.writer.write(gateway.request(model="m", close=False))
        await until(lambda: up.calls)
        wire.writer.write(gateway.request(model="m", close=False))
        (connection,) = gateway.server.server_state.connections
        await until(lambda: connection.pipeline)
        wire.writer.transport.abort()
        await asyncio.wait_for(up.calls[0].gone.wait(), 10)
        await idle(gateway)
        assert len(up.calls) == 1
        _ = await gateway.audited()


async def test_open_streams_finish_while_a_worker_stops(redis_url: str) -> None:
    """Told to exit, it takes nothing new and ends what it has, settled."""
    go_on = asyncio.Event()

    async def part(call: Call) -> None:
        await call.start()
        await call.word("before ")
        await go_on.wait()
        await call.word("after ")
        await call.finish(usage={"prompt_tokens": 7, "completion_tokens": 4})
        await call.end()

    async with (
        upstream(part) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        wire = await gateway.connect()
        wire.writer.write(gateway.request(model="m", close=False, stream=True))
        seen = await wire.read_until(b"before ")
        gateway.server.should_exit = True
        await until(lambda: not gateway.server.servers[0].is_serving())
        with pytest.raises(httpx.ConnectError):
            await gateway.client.get("/health/live")
        go_on.set()
        seen += await wire.reader.read()  # the connection is closed after the answer
        assert b"after " in seen
        assert seen.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        await wire.close()
        balance = await gateway.audited()
        assert balance.spent_nanodollars == 7_000 + 8_000


async def test_past_the_drain_time_streams_are_cut_visibly_and_settled(redis_url: str) -> None:
    """The client sees a broken answer, never a clean stop; the delivered part is charged."""
    async with upstream(silence("12345678")) as up:
        given = settings(model(up.endpoint("up"), id="m"), server={"drain_seconds": 0.2})
        async with running(redis_url, given) as gateway:
            wire = await gateway.connect()
            wire.writer.write(gateway.request(model="m", close=False, stream=True))
            seen = await wire.read_until(b"12345678")
            gateway.server.should_exit = True
            seen += await wire.reader.read()
            assert seen.count(b'"error":{"code":503') == 1
            assert b'"finish_reason":"error"' in seen
            assert b"[DONE]" not in seen
            assert b'"finish_reason":"stop"' not in seen
            await wire.close()
            _ = await gateway.audited()
            (line,) = await gateway.journal()
            assert line.tokens["completion"] == 2


async def test_a_whole_answer_past_the_drain_time_is_a_503_and_costs_nothing(
    redis_url: str,
) -> None:
    """Nothing of it was sent, so nothing is charged, and the client is told to come back."""
    async with upstream(silence("12345678")) as up:
        given = settings(model(up.endpoint("up"), id="m"), server={"drain_seconds": 0.2})
        async with running(redis_url, given) as gateway:
            wire = await gateway.connect()
            wire.writer.write(gateway.request(model="m", close=False))
            await until(lambda: up.calls)
            gateway.server.should_exit = True
            seen = await wire.reader.read()
            assert status_of(seen) == 503
            assert b"retry-after" in seen.lower()
            assert b"x-generation-id" in seen.lower()
            await wire.close()
            assert (await gateway.audited()).spent_nanodollars == 0


async def test_a_request_in_two_pieces_and_one_with_expect_are_read(redis_url: str) -> None:
    """However a body arrives, it is one body."""
    async with running(redis_url, settings(model(fake(tokens=2)))) as gateway:
        head, body = gateway.request(close=False).split(b"\r\n\r\n", 1)
        wire = await gateway.connect()
        wire.writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert status_of(await wire.read_until(b"\r\n\r\n")) == 100
        wire.writer.write(body[:10])
        await wire.writer.drain()
        wire.writer.write(body[10:])
        assert (await read_answer(wire))[0] == 200
        await wire.close()


async def idle(gateway: Gateway) -> None:
    """Wait until no request is open."""
    await until(lambda: len(gateway.worker.ticker) == 0)


async def test_a_worker_that_fills_up_while_bodies_come_takes_no_more(redis_url: str) -> None:
    """Who was let in with an empty worker and sent the last byte late finds it full."""
    async with upstream(*[silence("x ")] * 2) as up:
        given = settings(model(up.endpoint("up"), id="m"), server={"max_streams": 2})
        async with running(redis_url, given) as gateway:
            await gateway.settled()
            request = gateway.request(model="m", stream=True)
            wires = [await gateway.connect() for _ in range(6)]
            for wire in wires:
                wire.writer.write(request[:-1])
            await until(lambda: gateway.worker.bodies.held_bytes == 6 * (len(body_of(request)) - 1))
            for wire in wires:
                wire.writer.write(request[-1:])
            await until(lambda: gateway.worker.bodies.held_bytes == 0)
            assert len(gateway.worker.ticker) == 2
            for wire in wires:
                await wire.close()
            await idle(gateway)


async def test_a_client_of_http_1_0_gets_a_body_that_ends_with_the_connection(
    redis_url: str,
) -> None:
    """Chunks are of HTTP/1.1 (RFC 9112, 6.1)."""
    async with running(redis_url, settings(model(fake(tokens=2)))) as gateway:
        wire = await gateway.connect()
        request = gateway.request(stream=True).replace(b" HTTP/1.1", b" HTTP/1.0", 1)
        wire.writer.write(request)
        head, _, body = (await wire.reader.read()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert read_events(body)[-1] == "[DONE]"
        assert body.endswith(b"[DONE]\n\n")
        await wire.close()


async def test_a_full_worker_answers_503_at_once(redis_url: str) -> None:
    """``max_streams`` open: a clear refusal with a wait, and room again afterwards."""
    async with upstream(silence("x "), answer(["y "])) as up:
        given = settings(model(up.endpoint("up"), id="m"), server={"max_streams": 1})
        async with running(redis_url, given) as gateway:
            wire = await gateway.connect()
            wire.writer.write(gateway.request(model="m", stream=True))
            await wire.read_until(b"x ")
            reply = await gateway.chat(model="m")
            assert reply.status_code == 503
            assert reply.headers["retry-after"] == "1"
            assert reply.json()["error"]["metadata"]["error_type"] == "provider_overloaded"
            await wire.close()
            await idle(gateway)
            assert (await gateway.chat(model="m")).status_code == 200
            _ = await gateway.audited()
