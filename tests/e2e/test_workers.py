"""Several workers are one server: one port, one ledger, one page of metrics."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.streams import Crowd
from tests.served import Served, tollway, until

MODEL = "demo/slow"
QUICK = "demo/quick"
STREAMS = 50
TOKENS = 150
PRICE_NANODOLLARS = 1000
"""One USD per million completion tokens; the prompt costs nothing."""
ANSWERS = 25
ANSWER_TOKENS = 10


def fake(name: str, **script: int) -> dict[str, Any]:
    """A scripted model."""
    price = {"prompt": "0", "completion": "1"}
    return {"id": name, "endpoints": [{"backend": "fake", "script": script, "price": price}]}


DOCUMENT: dict[str, Any] = {
    "models": [fake(MODEL, tokens=TOKENS, token_ms=20), fake(QUICK, tokens=ANSWER_TOKENS)],
    "ledger": {"hold_ttl_s": 4, "progress_s": 0.3, "sweep_s": 0.3},
}
Make = Callable[[dict[str, Any] | None], Served]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(served: Make) -> AsyncIterator[Served]:
    """Two workers, stopped in order by the test's end."""
    server = served(DOCUMENT)
    server.workers = 2
    await server.start()
    yield server
    assert server.process is not None
    if server.process.poll() is None:
        assert await server.stop() == 0


def connections(server: Served, pid: int) -> int:
    """Return how many connections of clients a worker has."""
    port = int(server.url.rpartition(":")[2])
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"}
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    found = (re.fullmatch(r"socket:\[(\d+)\]", str(one.readlink())) for one in descriptors)
    return sum(one is not None and one[1] in ours for one in found)


def metrics(server: Served) -> str:
    """Return the page, from whichever worker a new connection reaches."""
    return httpx.get(f"{server.url}/metrics", trust_env=False).text


def metric(server: Served, line: str) -> float:
    """Return the value of one line of it; 0 if it is not there."""
    rows = [row.rpartition(" ") for row in metrics(server).splitlines()]
    return next((float(value) for name, _, value in rows if name == line), 0.0)


def own(server: Served, worker: str, path: str) -> httpx.Response:
    """Ask one worker by its own socket."""
    transport = httpx.HTTPTransport(uds=str(server.data / f"{worker}.sock"))
    with httpx.Client(transport=transport) as client:
        return client.get(f"http://worker{path}")


def workers_of(server: Served) -> tuple[int, int]:
    """Return the pids of both workers; it takes a while, in which no stream is read."""
    pids = server.pids()
    return pids["worker-1"], pids["worker-2"]


def crowd_of(server: Served) -> Crowd:
    """Clients with enough credit, each with a connection of its own."""
    return Crowd(server.url, server.key("acct", "--credit", "10"), MODEL)


async def test_both_workers_serve_once_the_server_says_that_it_does(server: Served) -> None:
    """Each is ready, each gets its share of the connections, and they have one page of metrics."""
    for worker in ("worker-1", "worker-2"):
        assert own(server, worker, "/health/ready").json()["status"] == "ok"
    crowd, workers = crowd_of(server), workers_of(server)
    crowd.join(STREAMS)
    await crowd.all_heard(5)
    shares = [connections(server, pid) for pid in workers]
    assert sum(shares) == STREAMS
    assert min(shares) >= 5
    await until(lambda: metric(server, "tollway_open_streams") == STREAMS)
    heard = await crowd.finish()
    assert all(one.finished and one.tokens == TOKENS for one in heard)
    done = f'tollway_requests_total{{dialect="openai",model="{MODEL}",status="200"}}'
    await until(lambda: metric(server, done) == STREAMS)
    for gauge in ("tollway_open_streams", "tollway_ledger_open_holds"):
        await until(lambda gauge=gauge: metric(server, gauge) == 0)
    for worker in ("worker-1", "worker-2"):
        page = own(server, worker, "/metrics").text
        assert f"\n{done} {STREAMS:.1f}\n" in page
        assert f'le="+Inf",model="{MODEL}"}} {STREAMS:.1f}\n' in page
        assert 'pid="' not in page
        assert "\ntollway_queue_depth 0.0\n" in page
        assert "\ntollway_ledger_open_holds 0.0\n" in page
        assert "\n# TYPE tollway_hedges_total counter\n" in page


async def test_an_account_is_one_account_for_all_workers(server: Served) -> None:
    """Credit for so many answers buys exactly so many, over however many connections."""
    usd = f"{ANSWERS * ANSWER_TOKENS * PRICE_NANODOLLARS / 1e9:.9f}"
    key = server.key("acct", "--credit", usd)
    body = {"model": QUICK, "max_tokens": ANSWER_TOKENS}
    body |= {"messages": [{"role": "user", "content": "a"}]}
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        ask = [
            client.post(
                f"{server.url}/v1/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
            )
            for _ in range(4 * ANSWERS)
        ]
        statuses = Counter(answer.status_code for answer in await asyncio.gather(*ask))
    assert statuses == {200: ANSWERS, 402: 3 * ANSWERS}
    await until(lambda: server.credits()["held_nanodollars"] == 0)
    left = server.credits()
    assert left["available_nanodollars"] == 0
    assert left["spent_nanodollars"] == ANSWERS * ANSWER_TOKENS * PRICE_NANODOLLARS
    assert tollway("ledger", "verify", data=server.data)["ok"]
    assert metric(server, 'tollway_rejections_total{reason="payment_required"}') == 3 * ANSWERS


async def test_a_killed_worker_takes_only_its_own_streams_with_it(server: Served) -> None:
    """The other's go on; who connects meanwhile is served; the killed one is back, and counts."""
    crowd, (killed, _) = crowd_of(server), workers_of(server)
    crowd.join(STREAMS)
    await crowd.all_heard(20)
    lost = connections(server, killed)
    os.kill(killed, signal.SIGKILL)
    crowd.join(STREAMS)
    heard = await crowd.finish()
    broken = [one for one in heard if one.broken]
    assert 0 < len(broken) == lost < STREAMS
    assert not any(one.broken for one in heard[STREAMS:]), "a connection was lost in a queue"
    assert all(one.finished and one.tokens == TOKENS for one in heard if not one.broken)
    await until(lambda: server.pids().get("worker-1", killed) != killed)
    await until(lambda: own(server, "worker-1", "/health/ready").status_code == 200)
    await until(lambda: server.credits()["held_nanodollars"] == 0, within_s=30)
    kinds = Counter(line["type"] for line in server.journal())
    assert (kinds["S"], kinds["X"]) == (2 * STREAMS - lost, lost)
    spent = server.credits()["spent_nanodollars"]
    assert spent <= sum(one.tokens for one in heard) * PRICE_NANODOLLARS
    assert tollway("ledger", "verify", data=server.data)["ok"]
    await until(lambda: metric(server, "tollway_open_streams") == 0)
    done = f'tollway_requests_total{{dialect="openai",model="{MODEL}",status="200"}}'
    assert metric(server, done) == 2 * STREAMS - lost


async def test_nobody_waits_for_a_worker_that_does_not_accept(server: Served) -> None:
    """What the kernel put into a frozen worker's queue is answered by the other."""
    frozen, _ = workers_of(server)
    os.kill(frozen, signal.SIGSTOP)
    try:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=20, trust_env=False) as client:
            ask = [client.get(f"{server.url}/health/live") for _ in range(STREAMS)]
            answers = await asyncio.gather(*ask)
        assert all(answer.status_code == 200 for answer in answers)
        assert connections(server, frozen) == 0
    finally:
        os.kill(frozen, signal.SIGCONT)


async def test_sigterm_breaks_no_stream_of_any_worker(server: Served) -> None:
    """Both drain: every stream ends as if nothing happened, and all are settled."""
    crowd, workers = crowd_of(server), workers_of(server)
    crowd.join(STREAMS)
    await crowd.all_heard(20)
    assert min(connections(server, pid) for pid in workers) > 0
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    heard = await crowd.finish()
    assert all(one.finished and one.tokens == TOKENS and not one.error for one in heard)
    assert await server.stop(0) == 0
    left = server.credits()
    assert left["held_nanodollars"] == 0
    assert left["spent_nanodollars"] == STREAMS * TOKENS * PRICE_NANODOLLARS
    assert not [*server.data.glob("*.sock")]


async def test_another_server_is_not_let_in_on_the_port(server: Served, tmp_path: Path) -> None:
    """Workers share the port with each other, not with another server of the same user."""
    port = server.url.rpartition(":")[2]
    for workers in ("1", "2"):
        words = ("serve", "--port", port, "--workers", workers, "--config", str(server.config))
        refused = tollway(*words, data=tmp_path / "other", expect=1)
        assert f"port {port} on '127.0.0.1' is taken" in refused["error"]["message"]
    assert server.ready_now()
