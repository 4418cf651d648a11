"""Asks a server and checks every answer: ``python -m gateway.bench.load``.

Reads plans from standard input, one JSON object a line, and prints what was measured, one JSON
object a line: a process that stays needs no start per measurement, and no key on a command line.

Two ways to ask. Closed loop: each connection asks again when its answer is complete. Open loop
(``per_second``): requests begin at a steady rate whether or not others are answered; one that finds
every connection busy counts from when it was due, so a stall cannot hide the requests behind it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import uvloop

from gateway.bench.client import Asker, Judge, bench_words, complete
from gateway.bench.upstream import CHUNKS

ANSWER_S: Final = 300.0
"""No answer takes longer: its connection is closed and the answer is wrong."""

PROGRESS_S: Final = 2.0
CONNECT_S: Final = 10.0
CONNECT_AT_ONCE: Final = 16
_TEXT: Final = "Tell a long story about a road, a toll and the people who pay it. "


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to ask, how often, and from how many connections."""

    url: str
    """The whole URL of the chat route."""

    model: str
    key: str = ""
    stream: bool = True
    connections: int = 16
    requests: int = 1_000_000
    seconds: float = 0.0
    """Begin no request after so many seconds; 0 is no such bound."""

    per_second: float = 0.0
    """Above 0: an open loop at this rate."""

    prompt_bytes: int = 1024
    max_tokens: int = CHUNKS
    nagle: bool = False
    """Whether the system may hold small writes back (TCP_NODELAY off)."""

    def __repr__(self) -> str:
        """Show what is asked; never the key."""
        return f"Plan({self.url!r}, {self.model!r})"

    any_words: bool = False
    """Whether an answer need only be complete; else it must be the bench upstream's."""

    firsts: bool = False
    """Whether to report every latency of a first content, not only percentiles."""


@dataclass(slots=True)
class Tally:
    """What was measured so far."""

    left: int
    begun: int = 0
    open: int = 0
    most_open: int = 0
    first_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    pieces: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    """How many failed, by status or what else went wrong."""

    said: dict[str, str] = field(default_factory=dict)
    """What the first of each kind said."""

    def fail(self, kind: str, words: str) -> None:
        """Count an answer that is not right."""
        self.wrong[kind] = self.wrong.get(kind, 0) + 1
        self.said.setdefault(kind, words)


Watch = Callable[[Tally], None]


class Run:
    """One plan while it runs."""

    def __init__(self, plan: Plan) -> None:
        """Prepare; nothing connects yet."""
        self.plan = plan
        self.tally = Tally(plan.requests)
        self._parts = urlsplit(plan.url)
        self._request = _request(plan)
        self._judge: Judge = complete if plan.any_words else bench_words
        self._due: deque[float] = deque()
        self._started = 0.0
        self._ticking: asyncio.TimerHandle | None = None

    async def ask(self, watch: Watch | None = None) -> dict[str, Any]:
        """Ask all of it and return what was measured; ``watch`` sees it every two seconds.

        Raises:
            OSError: the server cannot be reached.
        """
        loop = asyncio.get_running_loop()
        askers = await self._connect_all()
        self._ticking = loop.call_later(PROGRESS_S, self._tick, watch) if watch else None
        self._started = time.perf_counter()
        try:
            if self.plan.per_second:
                await self._at_a_rate(askers)
            else:
                await asyncio.gather(*map(self._closed_loop, askers))
        finally:
            if self._ticking is not None:
                self._ticking.cancel()
        return self._result(time.perf_counter() - self._started)

    def _tick(self, watch: Watch) -> None:
        watch(self.tally)
        self._ticking = asyncio.get_running_loop().call_later(PROGRESS_S, self._tick, watch)

    async def _connect_all(self) -> list[Asker]:
        """Open all connections, a few at once: a full accept queue would lose some."""
        count = min(self.plan.connections, self.plan.requests)
        askers = [await self._connect()]
        while len(askers) < count:
            several = min(CONNECT_AT_ONCE, count - len(askers))
            askers += await asyncio.gather(*(self._connect() for _ in range(several)))
        return askers

    async def _connect(self) -> Asker:
        secure = ssl.create_default_context() if self._parts.scheme == "https" else None
        port = self._parts.port or (443 if secure else 80)
        asker = Asker(self.plan.stream, self.plan.nagle, self.tally)
        host = self._parts.hostname or "127.0.0.1"
        async with asyncio.timeout(CONNECT_S):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: asker, host, port, ssl=secure)
        return asker

    def _more(self) -> bool:
        late = self.plan.seconds and time.perf_counter() - self._started > self.plan.seconds
        return self.tally.left > 0 and not late

    async def _closed_loop(self, asker: Asker) -> None:
        """Ask one request after the other; a server may close a connection between two."""
        while self._more():
            self.tally.left -= 1
            if asker.closed:
                try:
                    asker = await self._connect()
                except OSError as error:
                    self.tally.begun += 1
                    self.tally.fail("connection", str(error))
                    return
            await self._one(asker, time.perf_counter())
        asker.close()

    async def _one(self, asker: Asker, started: float) -> None:
        self.tally.begun += 1
        timer = asyncio.get_running_loop().call_later(ANSWER_S, asker.close)
        answer = await asker.ask(self._request, started)
        timer.cancel()
        fault = self._judge(answer, self.plan.stream)
        if fault is not None:
            self.tally.fail(*fault)
            return
        self.tally.first_s.append(answer.first_s or answer.total_s)
        self.tally.total_s.append(answer.total_s)
        self.tally.pieces += answer.pieces()

    async def _at_a_rate(self, askers: list[Asker]) -> None:
        """Begin requests when they are due; each connection takes the next that waits."""
        wake = asyncio.Semaphore(0)

        async def serve(asker: Asker) -> None:
            while True:
                await wake.acquire()
                if not self._due:
                    asker.close()
                    return
                await self._one(asker, self._due.popleft())
                if asker.closed:
                    asker = await self._connect()

        async with asyncio.TaskGroup() as group:
            for asker in askers:
                group.create_task(serve(asker))
            while self._more():
                self.tally.left -= 1
                due = self._started + (self.plan.requests - self.tally.left) / self.plan.per_second
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                self._due.append(max(due, time.perf_counter()))
                wake.release()
            for _ in askers:
                wake.release()

    def _result(self, seconds: float) -> dict[str, Any]:
        tally = self.tally
        result: dict[str, Any] = {
            "begun": tally.begun,
            "requests": len(tally.total_s),
            "seconds": seconds,
            "pieces": tally.pieces,
            "most_open": tally.most_open,
            "wrong": tally.wrong,
            "said": tally.said,
            "first_ms": percentiles(tally.first_s),
            "total_ms": percentiles(tally.total_s),
        }
        if self.plan.firsts:
            result["firsts_ms"] = [round(one * 1000, 2) for one in tally.first_s]
        return result


async def ask(plan: Plan, watch: Watch | None = None) -> dict[str, Any]:
    """Run a plan and return what was measured.

    Raises:
        OSError: the server cannot be reached.
    """
    return await Run(plan).ask(watch)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the nearest-rank percentiles in milliseconds; zeros where nothing was measured."""
    ordered = sorted(seconds) or [0.0]
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    last = len(ordered) - 1
    return {name: round(ordered[round(last * share)] * 1000, 3) for name, share in at.items()}


def _request(plan: Plan) -> bytes:
    parts = urlsplit(plan.url)
    prompt = (_TEXT * (plan.prompt_bytes // len(_TEXT) + 1))[: plan.prompt_bytes]
    words: dict[str, Any] = {
        "model": plan.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": plan.max_tokens,
    }
    if plan.stream:
        words |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(words).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {plan.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    """Run every plan that is read."""
    gc.disable()  # nothing here makes cycles worth a pause in somebody else's latency
    for line in sys.stdin:
        plan = msgspec.json.decode(line, type=Plan)
        print(json.dumps(uvloop.run(ask(plan))), flush=True)  # noqa: T201 - the result
        gc.collect()


if __name__ == "__main__":
    main()
