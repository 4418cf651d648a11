"""Processes are killed under open streams: no orphan, no lost credit, no overcharge."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.streams import Crowd
from tests.served import Served, alive, tollway, until

MODEL = "demo/slow"
STREAMS = 50
PRICE_NANODOLLARS = 1000
"""One USD per million completion tokens; the prompt costs nothing."""

DOCUMENT: dict[str, Any] = {
    "models": [
        {
            "id": MODEL,
            "endpoints": [
                {
                    "backend": "fake",
                    "script": {"tokens": 150, "token_ms": 20},
                    "price": {"prompt": "0", "completion": "1"},
                }
            ],
        }
    ],
    "ledger": {"hold_ttl_s": 4, "progress_s": 0.3, "sweep_s": 0.3},
    "server": {"drain_seconds": 30},
}
Make = Callable[[dict[str, Any] | None], Served]

pytestmark = pytest.mark.anyio


async def crowd_on(server: Served) -> Crowd:
    """Fifty streams that are well under way."""
    key = server.key("acct", "--credit", "1")
    crowd = Crowd(server.url, key, MODEL)
    crowd.join(STREAMS)
    await crowd.all_heard(20)
    return crowd


async def no_hold_left(server: Served) -> dict[str, Any]:
    """Wait for the sweep; return what is left."""
    return dict(
        await until(lambda: (c := server.credits())["held_nanodollars"] == 0 and c, within_s=30)
    )


async def test_a_killed_worker_is_replaced_and_nobody_pays_for_more_than_was_delivered(
    served: Make,
) -> None:
    """The dead worker's holds are captured at their last checkpoint, at most what arrived."""
    server = served(DOCUMENT)
    await server.start()
    crowd = await crowd_on(server)
    worker = server.pids()["worker-1"]
    os.kill(worker, signal.SIGKILL)
    heard = await crowd.finish()
    assert all(one.broken and not one.finished for one in heard)
    await until(lambda: server.pids().get("worker-1", worker) != worker and server.ready_now())
    left = await no_hold_left(server)
    delivered = sum(one.tokens for one in heard)
    assert 0 < left["spent_nanodollars"] <= delivered * PRICE_NANODOLLARS
    captured = [line for line in server.journal() if line["type"] == "X"]
    assert len(captured) == STREAMS
    assert tollway("ledger", "verify", data=server.data)["ok"]
    assert await server.stop() == 0


async def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_works(
    served: Make,
) -> None:
    """Everything ends with the supervisor; the next start sweeps the dead run's holds."""
    server = served(DOCUMENT)
    await server.start()
    crowd = await crowd_on(server)
    pids = server.pids()
    os.kill(pids["supervisor"], signal.SIGKILL)
    assert server.process is not None
    server.process.wait()
    heard = await crowd.finish()
    await server.all_gone()
    printed = await server.start()
    assert "curl" not in printed, "the first key is printed once"
    assert not any(alive(pid) for pid in pids.values())
    left = await no_hold_left(server)
    assert left["spent_nanodollars"] <= sum(one.tokens for one in heard) * PRICE_NANODOLLARS
    assert tollway("ledger", "verify", data=server.data)["ok"]
    assert await server.stop() == 0


async def test_a_killed_valkey_comes_back_and_the_streams_settle(served: Make) -> None:
    """Open streams go on while the ledger is away, and each is settled once when it is back."""
    server = served({**DOCUMENT, "ledger": {"hold_ttl_s": 30, "progress_s": 0.3, "sweep_s": 0.3}})
    await server.start()
    crowd = await crowd_on(server)
    valkey = server.pids()["valkey"]
    os.kill(valkey, signal.SIGKILL)
    heard = await crowd.finish()
    assert all(one.finished and one.tokens == 150 for one in heard)
    await until(lambda: server.pids().get("valkey", valkey) != valkey and server.ready_now())
    left = await no_hold_left(server)
    assert left["spent_nanodollars"] == STREAMS * 150 * PRICE_NANODOLLARS
    assert len([line for line in server.journal() if line["type"] == "S"]) == STREAMS
    assert tollway("ledger", "verify", data=server.data)["ok"]
    assert await server.stop() == 0


async def test_sigterm_breaks_no_stream(served: Make) -> None:
    """Open streams end as if nothing happened, all are settled, and the exit code is 0."""
    server = served(DOCUMENT)
    await server.start()
    crowd = await crowd_on(server)
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    heard = await crowd.finish()
    assert all(one.finished and one.tokens == 150 and not one.error for one in heard)
    assert await server.stop(0) == 0
    left = server.credits()
    assert left["held_nanodollars"] == 0
    assert left["spent_nanodollars"] == STREAMS * 150 * PRICE_NANODOLLARS
    assert len([line for line in server.journal() if line["type"] == "S"]) == STREAMS
