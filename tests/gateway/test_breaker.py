"""Breakers: when an endpoint is left alone, and how it comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.endpoint_settings import BreakerSettings
from gateway.endpoints import Breaker
from tests.gateway.upstreams import Call, answer, refusal, upstream
from tests.gateway_harness import Clock, fake, model, running, settings, until
from tests.valkey_server import ValkeyServer


@pytest.fixture
def breaker() -> Breaker:
    """A breaker that opens after 3 failures for 5 s, at most 20 s."""
    return Breaker(BreakerSettings(open_ms=5_000, max_open_ms=20_000, failures=3))


def fail(breaker: Breaker, now: float, *, at_once: bool = False) -> None:
    """Send one request that fails."""
    breaker.failed(now, probe=breaker.begin(now), at_once=at_once)


def test_a_breaker_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    """A success in between starts the count anew."""
    for _ in range(2):
        fail(breaker, 0)
    breaker.succeeded()
    for _ in range(2):
        fail(breaker, 0)
    assert breaker.available(0)
    fail(breaker, 0)
    assert not breaker.available(0)
    assert breaker.is_open


def test_a_refused_credential_opens_it_at_once(breaker: Breaker) -> None:
    """There is no use in asking five times with a key that is refused."""
    fail(breaker, 0, at_once=True)
    assert not breaker.available(4.9)
    assert breaker.available(5)


def test_open_time_doubles_with_every_failed_probe_up_to_the_maximum(breaker: Breaker) -> None:
    """5, 10, 20, 20 s; a success closes it and the next opening is 5 s again."""
    now = 0.0
    fail(breaker, now, at_once=True)
    for seconds in (5.0, 10.0, 20.0, 20.0):
        assert not breaker.available(now + seconds - 0.001)
        now += seconds
        assert breaker.available(now)
        fail(breaker, now)
    breaker.begin(now + 20)
    breaker.succeeded()
    assert not breaker.is_open
    fail(breaker, now, at_once=True)
    assert breaker.open_until == now + 5


def test_one_probe_goes_out_in_an_open_period(breaker: Breaker) -> None:
    """While it is on its way nobody else is sent; abandoned, its place is free again."""
    fail(breaker, 0, at_once=True)
    assert breaker.begin(6)
    assert not breaker.available(6)
    assert not breaker.begin(6)
    breaker.abandoned(probe=False)
    assert not breaker.available(6)
    breaker.abandoned(probe=True)
    assert breaker.available(6)


def test_failures_of_requests_under_way_do_not_prolong_an_outage(breaker: Breaker) -> None:
    """A hundred streams that break together open it once, for the first time's length."""
    tries = [breaker.begin(0) for _ in range(100)]
    for probe in tries:
        breaker.failed(1, probe=probe, at_once=False)
    assert breaker.open_until == 6


pytest_anyio = pytest.mark.anyio


def two(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A model with two endpoints in order."""
    return model(first, second, id="m", strategy="ordered")


@pytest_anyio
@pytest.mark.parametrize("status", [401, 402, 403, 404])
async def test_a_refused_credential_is_asked_once_and_then_left_alone(
    redis_url: str, status: int
) -> None:
    """The breaker opens at the first refusal; the plan of the next request says why."""
    clock = Clock()
    async with (
        upstream(refusal(status), answer(["back "])) as first,
        upstream(answer(["second "])) as second,
        running(
            redis_url,
            settings(two(first.endpoint("first"), second.endpoint("second"))),
            times=clock.times,
        ) as gateway,
    ):
        for _ in range(3):
            reply = await gateway.chat(model="m")
            assert reply.json()["provider"] == "second"
        assert len(first.calls) == 1
        record = await gateway.generation(reply.json()["id"])
        (rejection,) = record["plan"]["rejections"]
        assert (rejection["endpoint"], rejection["reason"]) == ("m@first", "unhealthy")
        assert await gateway.metric('tollway_breaker_open{model="m",provider="first"}') == 1
        clock.advance(5.1)
        assert (await gateway.chat(model="m")).json()["provider"] == "first"
        assert await gateway.metric('tollway_breaker_open{model="m",provider="first"}') == 0


@pytest_anyio
async def test_an_outage_is_served_by_the_second_and_probed_once_in_a_while(redis_url: str) -> None:
    """The breaker opens, one request in each open period probes, and the first serves again."""
    clock = Clock()
    async with (
        upstream(*[refusal(503)] * 5, answer(["back "])) as first,
        upstream(answer(["second "])) as second,
    ):
        endpoint = first.endpoint("first", retries=0, breaker={"failures": 3})
        given = settings(two(endpoint, second.endpoint("second")))
        async with running(redis_url, given, times=clock.times) as gateway:
            served = []
            for _ in range(12):
                served.append((await gateway.chat(model="m")).json()["provider"])
                clock.advance(2)
            # Tried at 0, 2, 4 s; open till 9, probed at 10; open till 20, probed at 20.
            assert served == ["second"] * 12
            assert len(first.calls) == 5
            clock.advance(20)
            assert (await gateway.chat(model="m")).json()["provider"] == "first"
            assert (await gateway.chat(model="m")).json()["provider"] == "first"
            _ = await gateway.audited()


@pytest_anyio
async def test_a_crowd_sends_one_probe(own_valkey: ValkeyServer) -> None:
    """Requests that were planned together do not all become the probe."""
    clock, go_on = Clock(), asyncio.Event()

    async def wait(call: Call) -> None:
        await go_on.wait()
        await answer(["back "])(call)

    async with (
        upstream(refusal(401), wait) as first,
        upstream(answer(["second "])) as second,
    ):
        given = settings(two(first.endpoint("first"), second.endpoint("second")))
        async with running(own_valkey.url, given, times=clock.times) as gateway:
            assert (await gateway.chat(model="m")).json()["provider"] == "second"
            clock.advance(5.1)
            _ = await gateway.chat(model="m", temperature=9)  # the key is known anew
            own_valkey.freeze()
            crowd = [asyncio.create_task(gateway.chat(model="m")) for _ in range(20)]
            await until(lambda: len(gateway.worker.ticker) == 20)  # all planned, none reserved
            own_valkey.thaw()
            await until(lambda: sum(task.done() for task in crowd) == 19)
            go_on.set()
            served = sorted([(await task).json()["provider"] for task in crowd])
            assert served == ["first", *["second"] * 19]
            assert len(first.calls) == 2


@pytest_anyio
async def test_with_everything_down_the_endpoints_are_tried_all_the_same(redis_url: str) -> None:
    """A wrong guess beats none: an open breaker never refuses a request by itself."""
    clock = Clock()
    first = fake(tokens=1, fail={"status": 401, "times": 1})
    async with running(redis_url, settings(model(first, id="m")), times=clock.times) as gateway:
        assert (await gateway.chat(model="m")).status_code == 502
        assert gateway.worker.table.endpoint("m@fake").breaker.is_open
        assert (await gateway.chat(model="m")).status_code == 200
        assert not gateway.worker.table.endpoint("m@fake").breaker.is_open


@pytest_anyio
async def test_a_client_that_leaves_during_a_probe_gives_its_place_back(redis_url: str) -> None:
    """A cancelled probe says nothing; the next request is the probe."""
    clock = Clock()

    async def wait(call: Call) -> None:
        await call.gone.wait()

    async with (
        upstream(refusal(401), wait, answer(["back "])) as first,
        upstream(answer(["second "])) as second,
    ):
        given = settings(two(first.endpoint("first"), second.endpoint("second")))
        async with running(redis_url, given, times=clock.times) as gateway:
            _ = await gateway.chat(model="m")
            clock.advance(5.1)
            leaving = asyncio.create_task(gateway.chat(model="m"))
            await until(lambda: len(first.calls) == 2)
            leaving.cancel()
            await first.calls[1].gone.wait()
            breaker = gateway.worker.table.endpoint("m@first").breaker
            await until(lambda: not breaker.probing)
            assert (await gateway.chat(model="m")).json()["provider"] == "first"
