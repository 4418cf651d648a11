"""A worker that is too busy or full says so before it looks at what it is sent."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Overloaded
from gateway.overload import Overload
from gateway.settings import ServerSettings
from tests.gateway_harness import Clock, fake, model, running, settings, status_of

TICK_S = 0.25


class Ticking:
    """An overload judge with a clock of its own."""

    def __init__(self, **given: float) -> None:
        """Begin."""
        self.clock = Clock()
        self.overload = Overload(ServerSettings.model_validate(given), self.clock.at_s)

    def ticks(self, *lags_s: float) -> list[bool]:
        """Let ticks come so late; return after each whether it sheds."""
        return [self._tick(lag_s) for lag_s in lags_s]

    def _tick(self, lag_s: float) -> bool:
        self.clock.advance(TICK_S + lag_s)
        assert self.overload.tick(self.clock.at_s) == pytest.approx(lag_s)
        return self.overload.shedding


def test_lag_sheds_once_it_has_lasted() -> None:
    """More than 500 ms late for 2 s; the time between the ticks counts."""
    assert Ticking().ticks(0.6, 0.6, 0.6, 0.6) == [False, False, True, True]


def test_one_tick_that_is_very_late_is_lag_that_lasted() -> None:
    """A blocked loop delivers one tick where there should have been ten."""
    assert Ticking().ticks(0.0, 1.9) == [False, False]
    assert Ticking().ticks(0.0, 2.5) == [False, True]


def test_lag_that_comes_and_goes_sheds_nothing() -> None:
    """A good tick between bad ones begins the count anew; 500 ms itself is no overload."""
    assert not any(Ticking().ticks(*[0.8, 0.8, 0.0] * 10))
    assert not any(Ticking().ticks(*[0.5] * 100))


def test_shedding_ends_after_as_long_without_lag() -> None:
    """Two seconds of ticks at most half as late: no flapping while the load is only held back."""
    busy = Ticking()
    assert busy.ticks(2.5) == [True]
    assert busy.ticks(*[0.0] * 8) == [True] * 8
    assert busy.ticks(0.0) == [False]
    assert busy.ticks(1.9) == [False], "a new overload has to last, too"


@pytest.mark.parametrize("lag_s", [0.3, 0.6])
def test_a_late_tick_begins_the_wait_for_the_end_anew(lag_s: float) -> None:
    """Also one that would not begin an overload."""
    busy = Ticking()
    assert busy.ticks(2.5, *[0.0] * 8, lag_s) == [True] * 10
    assert busy.ticks(*[0.0] * 9) == [True] * 8 + [False]


def test_the_bounds_are_settings() -> None:
    """``shed_lag_ms``, ``shed_lag_s`` and ``max_streams``."""
    quick = Ticking(shed_lag_ms=100, shed_lag_s=0, max_streams=3)
    quick.overload.check(2)
    with pytest.raises(Overloaded, match="full"):
        quick.overload.check(3)
    assert quick.ticks(0.2, 0.0) == [True, False]


@pytest.mark.parametrize(("shed_lag_s", "wait"), [(0.0, "1"), (2.0, "2"), (2.1, "3")])
def test_the_refusal_says_when_to_come_back(shed_lag_s: float, wait: str) -> None:
    """Not before the shedding can have ended, in whole seconds."""
    busy = Ticking(shed_lag_s=shed_lag_s)
    _ = busy.ticks(3.0)
    with pytest.raises(Overloaded, match="too busy") as caught:
        busy.overload.check(0)
    assert caught.value.reply.headers["Retry-After"] == wait


@pytest.mark.anyio
async def test_an_overloaded_worker_sheds_what_it_has_not_read(redis_url: str) -> None:
    """503 before key and body, counted; health, metrics and catalogue answer; then it recovers."""
    clock = Clock()
    given = settings(model(fake(tokens=2)), server={"shed_lag_ms": 500})
    async with running(redis_url, given, times=clock.times) as gateway:
        assert (await gateway.chat()).status_code == 200
        overload = gateway.worker.overload
        clock.advance(TICK_S + 2.5)
        _ = overload.tick(clock.at_s)
        body = b"this is no JSON, and it is not all of it"
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer none\r\n"
        head += b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
        wire = await gateway.connect()
        wire.writer.write(head)
        reply = await asyncio.wait_for(wire.reader.read(), 10)
        wire.writer.write(body)
        await wire.close()
        assert status_of(reply) == 503
        assert b"100 Continue" not in reply
        for _ in range(2):
            answer = await gateway.chat()
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "2"
            error = answer.json()["error"]
            assert error["metadata"]["error_type"] == "provider_overloaded"
        for path in ("/health/live", "/health/ready", "/metrics", "/v1/models"):
            assert (await gateway.client.get(path)).status_code == 200
        assert await gateway.metric('tollway_rejections_total{reason="provider_overloaded"}') == 3
        for _ in range(9):
            clock.advance(TICK_S)
            _ = overload.tick(clock.at_s)
        assert (await gateway.chat()).status_code == 200
        _ = await gateway.audited()
