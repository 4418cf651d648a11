"""What reserve and settle cost in CPU, beside redis-py: ``python -m tests.benchmarks.ledger_cost``.

Compared, per pair of calls and in one process (its own CPU only; Valkey is another process):

- ours: 16 loops at once, each awaits ``Ledger.reserve`` and then ``Ledger.settle`` and starts over.
  Names are checked, arguments built and encoded, replies turned into objects; calls that wait in
  one tick share one write.
- theirs: the same two function calls with the same arguments (recorded from ours, only the id
  differs), sent as well as a user of redis-py can: for each 16 pairs one
  ``pipeline(transaction=False)`` with 16 reserve calls, then one with 16 settle calls. Arguments
  are ready before the clock starts and replies stay raw.

Both run on uvloop, on one Unix socket to one real Valkey with its file on, and alternate.
Requests for ours are built before the clock starts, too: a gateway has them from its plan.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import uvloop
from redis.asyncio import Redis

from policies.ledger.base import HoldRequest, Limits, LineMeta, SettleRequest
from policies.ledger.calls import Command
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from tests.valkey_server import ValkeyServer

LOOPS = 16
ACCOUNT, KEY = "bench", "key-of-the-bench"
LIMITS = Limits(rpm=10_000_000, tpm=2_000_000_000, concurrency=100_000)
META = LineMeta(model="bench/burst", endpoint="p0", tokens={"prompt": 10, "completion": 64})
RECORD = json.dumps({"id": "gen-bench", "model": "bench/burst", "usage": {"completion": 64}})

Pair = tuple[HoldRequest, SettleRequest]


def pair() -> Pair:
    """Return a hold and its settlement under a new id."""
    hold_id = f"gen-{uuid.uuid4().hex}"
    hold = HoldRequest(
        hold_id,
        ACCOUNT,
        KEY,
        138_000,
        estimated_tokens=330,
        limits=(*LIMITS.of_key(KEY), *LIMITS.of_account()),
        meta=META,
    )
    settle = SettleRequest(hold_id, ACCOUNT, 138_000, 138_000_000, 74, META, RECORD.encode())
    return hold, settle


async def ours(ledger: Ledger, pairs: Sequence[Pair]) -> None:
    """Hold and settle every pair from 16 loops at once."""
    left = iter(pairs)

    async def loop() -> None:
        for hold, settle in left:
            await ledger.reserve(hold)
            await ledger.settle(settle)

    await asyncio.gather(*(loop() for _ in range(LOOPS)))


async def theirs(client: Redis, pairs: Sequence[tuple[Command, Command]]) -> None:
    """Send the same calls, 16 pairs at a time, in two pipelines."""
    for start in range(0, len(pairs), LOOPS):
        group = pairs[start : start + LOOPS]
        for which in (0, 1):
            pipe = client.pipeline(transaction=False)
            for commands in group:
                pipe.execute_command(*commands[which])
            for reply in await pipe.execute():
                assert isinstance(reply, list), reply


async def recorded(ledger: Ledger, of: Pair) -> tuple[Command, Command]:
    """Run a pair and return the two commands that it sent."""
    sent: list[Command] = []
    calls = ledger._calls
    function = calls.function

    async def note(name: str, keys: Sequence[str], args: Command) -> Any:
        sent.append(("FCALL", name, len(keys), *keys, *args))
        return await function(name, keys, args)

    calls.function = note  # type: ignore[method-assign]
    try:
        await ledger.reserve(of[0])
        await ledger.settle(of[1])
    finally:
        del calls.function  # the class's own again
    reserve, settle = sent
    return reserve, settle


def under_new_id(commands: tuple[Command, Command], old: str) -> tuple[Command, Command]:
    """Return recorded commands for an id that was not used."""
    new = f"gen-{uuid.uuid4().hex}"

    def renamed(command: Command) -> Command:
        return tuple(w.replace(old, new) if isinstance(w, str) else w for w in command)

    return renamed(commands[0]), renamed(commands[1])


async def compare(url: str, rounds: int, pairs: int) -> list[dict[str, float]]:
    """Alternate both; return microseconds of CPU per pair for each round (one more warms up)."""
    client = connect(url)
    ledger = Ledger(client)
    found = []
    try:
        await ledger.start()
        await ledger.grant("bench", ACCOUNT, 10**15)
        first = pair()
        commands = await recorded(ledger, first)
        for _ in range(rounds + 1):
            own = [pair() for _ in range(pairs)]
            raw = [under_new_id(commands, first[0].hold_id) for _ in range(pairs)]
            at = time.process_time()
            await ours(ledger, own)
            between = time.process_time()
            await theirs(client, raw)
            end = time.process_time()
            found.append(
                {
                    "ours_us": (between - at) / pairs * 1e6,
                    "theirs_us": (end - between) / pairs * 1e6,
                }
            )
        balance = await ledger.balance(ACCOUNT)
        done = (rounds + 1) * pairs * 2 + 1
        assert balance is not None
        assert balance.spent_nanodollars == done * 138_000, "not every pair was settled"
    finally:
        await ledger.aclose()
        await client.aclose()
    return found[1:]


def main() -> None:
    """Print the rounds as JSON."""
    parser = argparse.ArgumentParser(description="CPU of reserve and settle.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=3200)
    given = parser.parse_args()
    server = ValkeyServer()
    server.start()
    try:
        print(json.dumps(uvloop.run(compare(server.url, given.rounds, given.pairs))))
    finally:
        server.remove()


if __name__ == "__main__":
    main()
