"""Readers that take a kilobyte a second: what they hold, and what others notice of them."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from gateway.bench import cost
from gateway.bench.load import Plan
from tests.e2e.many import Child, child, clock, flood, need_files
from tests.gateway.upstreams import openai_endpoint
from tests.served import Served, tollway, until

Make = Callable[[dict[str, Any] | None], Served]

MOST_BYTES_EACH = 256 * 1024
OTHERS = 16

pytestmark = pytest.mark.anyio


def readers(stack: ExitStack, server: Served, key: str, count: int) -> Child:
    """Let so many slow readers in."""
    words = ("--part", "slow", "--url", server.url, "--clients", str(count))
    return stack.enter_context(child("tests.e2e.clients_process", *words, key=key))


async def others(server: Served, key: str) -> float:
    """Return the median time to the first token of sixteen quick clients, in ms."""
    url = f"{server.url}/v1/chat/completions"
    plan = Plan(url=url, model="burst", key=key, requests=400, connections=OTHERS)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.bench.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(msgspec.json.encode(plan))
    found = json.loads(out)
    assert (found["requests"], found["wrong"]) == (400, {}), found
    return float(found["first_ms"]["p50"])


async def in_order(server: Served) -> None:
    """Wait until nothing is held; the books must agree."""
    await until(lambda: server.credits()["held_nanodollars"] == 0)
    assert tollway("ledger", "verify", data=server.data)["ok"]
    assert server.errors.count('"level":"error"') == 0
    assert await server.stop() == 0


async def test_twenty_slow_readers_are_served_and_pay_what_they_took(served: Make) -> None:
    """Others get whole answers meanwhile; who leaves is settled as a client cut."""
    with ExitStack() as stack:
        upstream = stack.enter_context(child("tests.e2e.upstream_process", "--pace-ms", "1"))
        port = int(await upstream.line())
        server = served({"models": [flood(port), clock(port)]})
        await server.start()
        key = server.key("acct", "--credit", "1000")
        slow = readers(stack, server, key, 20)
        assert await slow.line() == "open"
        words = ("--part", "clock", "--url", server.url, "--chunks", "20", "--clients", "4")
        quick = stack.enter_context(child("tests.e2e.clients_process", *words, key=key))
        assert await quick.line() == "open"
        upstream.go_on()
        assert await quick.line() == "half"
        assert json.loads(await quick.line())["complete"] == 4
        await slow.leave()
        await until(lambda: server.credits()["held_nanodollars"] == 0)
        cut = [line for line in server.journal() if "cut" in line["flags"]]
        assert len(cut) == 20
        assert all(line["charge_nanodollars"] > 0 for line in cut)
        await in_order(server)


@pytest.mark.streams
@pytest.mark.timeout(300)
async def test_five_hundred_slow_readers_hold_little_and_others_do_not_wait(
    served: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """At most 256 KiB of the worker's memory each; others' first token, with and without them."""
    need_files(3_000)
    count, rounds, ratios = 500, 5, []
    with ExitStack() as stack:
        upstream = stack.enter_context(child("tests.e2e.upstream_process", "--pace-ms", "1"))
        port = int(await upstream.line())
        price = {"prompt": "0", "completion": "1"}
        burst = openai_endpoint(port, "up", model="burst", price=price)
        server = served({"models": [flood(port), {"id": "burst", "endpoints": [burst]}]})
        await server.start()
        key = server.key("acct", "--credit", "10000")
        _ = await others(server, key)  # imports, first connections
        worker = [server.pids()["worker-1"]]
        before = cost.rss_bytes(worker)
        held = []
        for _ in range(rounds):
            alone = await others(server, key)
            with ExitStack() as crowd:
                slow = readers(crowd, server, key, count)
                assert await slow.line() == "open"
                assert await slow.line() == "read"
                beside = await others(server, key)
                held.append(cost.rss_bytes(worker))
                await slow.leave()
            ratios.append(round(beside / alone, 3))
            await until(lambda: server.credits()["held_nanodollars"] == 0)
        await in_order(server)
    figures = {
        "readers": count,
        "before_bytes": before,
        "during_bytes": held,
        "bytes_per_reader": (max(held) - before) // count,
        "first_token_ratios": ratios,
        "first_token_ratio": statistics.median(ratios),
    }
    with capsys.disabled():
        print("\n" + json.dumps(figures))
    assert figures["bytes_per_reader"] <= MOST_BYTES_EACH
