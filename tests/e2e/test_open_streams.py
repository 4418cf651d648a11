"""Very many streams on one worker: all complete, all settled, and what each of them costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.bench import cost
from tests.e2e.many import (
    PRICE_NANODOLLARS,
    Child,
    child,
    clock,
    need_files,
)
from tests.served import Served, tollway, until

Make = Callable[[dict[str, Any] | None], Served]

FEW, FEW_CHUNKS = 20, 5
MOST_BYTES_EACH = 40_000
MOST_BYTES = 350_000_000
MOST_GAP_MS = 250

pytestmark = pytest.mark.anyio


async def play(
    server: Served, upstream: Child, key: str, streams: int, chunks: int
) -> dict[str, Any]:
    """Have streams open at once, read them to their ends, return what was seen."""
    words = ("--part", "clock", "--url", server.url, "--chunks", str(chunks))
    words += ("--clients", str(streams))
    worker = [server.pids()["worker-1"]]
    with child("tests.e2e.clients_process", *words, key=key) as clients:
        assert await clients.line() == "open"
        opened = cost.rss_bytes(worker)
        upstream.go_on()
        assert await clients.line() == "half"
        half = cost.rss_bytes(worker)
        seen: dict[str, Any] = json.loads(await clients.line())
    assert seen.pop("wrong") == []
    assert (seen["complete"], seen["chunks"]) == (streams, streams * chunks)
    return seen | {"during_bytes": max(opened, half), "after_bytes": cost.rss_bytes(worker)}


async def crowd(make: Make, streams: int, chunks: int, pace_ms: int) -> dict[str, Any]:
    """Have so many streams open at once; return what was measured, checked against the ledger."""
    with child("tests.e2e.upstream_process", "--pace-ms", str(pace_ms)) as upstream:
        server = make({"models": [clock(int(await upstream.line()))]})
        await server.start()
        key = server.key("acct", "--credit", "1000")
        few = await play(server, upstream, key, FEW, FEW_CHUNKS)  # imports
        many = await play(server, upstream, key, streams, chunks)
        await until(lambda: server.credits()["held_nanodollars"] == 0)
        spent = server.credits()["spent_nanodollars"]
        assert spent == (FEW * FEW_CHUNKS + streams * chunks) * PRICE_NANODOLLARS
        assert tollway("ledger", "verify", data=server.data)["ok"]
        assert server.errors.count('"level":"error"') == 0
        assert await server.stop() == 0
    before, during = few.pop("after_bytes"), many.pop("during_bytes")
    each = (during - before) // streams
    return many | {"before_bytes": before, "during_bytes": during, "bytes_per_stream": each}


async def test_two_hundred_open_streams_are_complete_and_paid_exactly(served: Make) -> None:
    """Each chunk of each stream arrives; the account has paid for each, and no hold is left."""
    _ = await crowd(served, streams=200, chunks=20, pace_ms=50)


@pytest.mark.streams
@pytest.mark.timeout(300)
async def test_five_thousand_open_streams_cost_little_memory_and_none_stalls(
    served: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chunk a second each: under 40 KB a stream, under 350 MB, no gap over 250 ms beyond ours.

    The gap is what a client waited between two chunks less what the upstream let pass.
    """
    need_files(11_000)
    figures = await crowd(served, streams=5_000, chunks=40, pace_ms=1_000)
    with capsys.disabled():
        print("\n" + json.dumps(figures))
    assert figures["bytes_per_stream"] <= MOST_BYTES_EACH
    assert figures["during_bytes"] <= MOST_BYTES
    assert figures["gap_ms"] <= MOST_GAP_MS
