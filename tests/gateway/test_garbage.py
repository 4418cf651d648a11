"""Garbage in cycles is collected at the worker's ticks, and everywhere only when that is cheap."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from gateway.garbage import BUSY_S, QUIET_S, QUIET_STREAMS, SPARE_BYTES, Garbage, rss_bytes
from tests.gateway_harness import fake, model, running, settings

OURS = ("gateway", "backends", "policies")


class Knot:
    """An object that refers to itself."""

    def __init__(self) -> None:
        """Tie it."""
        self.own = self


@pytest.fixture(autouse=True)
def _no_automatic_collection() -> Iterator[None]:
    """Nothing is collected but by the ticks."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def young() -> weakref.ref[Knot]:
    """Leave a new knot behind."""
    return weakref.ref(Knot())


def old() -> weakref.ref[Knot]:
    """Leave a knot behind that outlived a collection of what is young."""
    knot = Knot()
    gc.collect(0)
    gc.collect(1)
    return weakref.ref(knot)


def test_a_tick_collects_what_is_young() -> None:
    """However many streams are open."""
    garbage, left = Garbage(0.0), young()
    garbage.tick(0.25, 5_000)
    assert left() is None


def test_old_garbage_waits_until_the_worker_is_quiet() -> None:
    """A busy one is not stopped for it; and a quiet one not more often than needed."""
    garbage, left = Garbage(0.0), old()
    garbage.tick(QUIET_S + 1, QUIET_STREAMS + 1)
    garbage.tick(QUIET_S - 1, 0)
    assert left() is not None
    garbage.tick(QUIET_S + 2, QUIET_STREAMS)
    assert left() is None
    left = old()
    garbage.tick(QUIET_S + 3, 0)
    assert left() is not None


def test_a_worker_that_grows_and_is_never_quiet_collects_all_the_same() -> None:
    """Its memory is bounded by that, at the price of a pause a minute at most."""
    size = 100
    garbage, left = Garbage(0.0, lambda: size), old()
    garbage.tick(BUSY_S, 5_000)
    size = 151 + SPARE_BYTES
    garbage.tick(BUSY_S - 1, 5_000)
    assert left() is not None
    garbage.tick(BUSY_S, 5_000)
    assert left() is None


def test_the_system_tells_how_large_we_are() -> None:
    """In bytes: more than Python alone, less than this machine."""
    assert 5_000_000 < rss_bytes() < 2**40


@pytest.mark.anyio
async def test_a_request_leaves_no_cycle_behind(redis_url: str) -> None:
    """Its objects go with their last reference: looking for them later would cost as much again."""
    given = settings(
        model(fake(tokens=3)),
        model(fake(tokens=9, fail={"how": "stall", "after_tokens": 1}), id="slow"),
    )
    async with running(redis_url, given) as gateway:
        for stream in (False, True):
            wire = await gateway.connect()
            wire.writer.write(gateway.request(stream=stream))
            await wire.reader.read()
            await wire.close()
        await gateway.settled()
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(5):  # clients that leave in mid-answer
                wire = await gateway.connect()
                wire.writer.write(gateway.request(stream=True, model="slow"))
                await wire.read_until(b"content")
                await wire.close()
            for number in range(20):
                wire = await gateway.connect()
                wire.writer.write(gateway.request(stream=bool(number % 2)))
                await wire.reader.read()
                await wire.close()
            await gateway.settled()
            gc.collect()
            left = [type(found) for found in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        ours = [kind for kind in left if kind.__module__.partition(".")[0] in OURS]
        assert ours == []
        assert left.count(asyncio.Task) == 0
