"""Asks a server and checks every answer: ``python -m gateway.bench.load --url ... --model ...``.

Closed loop: each connection asks again when its answer is complete. Prints one JSON object:
requests, seconds, and percentiles of the first content's and the whole answer's latency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from gateway.bench.upstream import CHUNKS

KEY_VARIABLE: Final = "TOLLWAY_API_KEY"
LAST_WORD: Final = f"word{CHUNKS - 1} ".encode()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask, how often, and from how many connections."""

    url: str
    model: str
    stream: bool
    requests: int
    connections: int
    prompt_bytes: int = 1024


@dataclass(slots=True)
class Tally:
    """What was measured."""

    left: int
    first_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    wrong: int = 0
    sample: str = ""


class Asker(asyncio.Protocol):
    """One connection that asks until nothing is left to ask."""

    def __init__(self, request: bytes, stream: bool, tally: Tally) -> None:
        """``request`` is a whole HTTP request."""
        self._request, self._stream, self._tally = request, stream, tally
        self._first = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop has one of its own
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        """A connection that is lost in an answer makes the answer wrong."""
        if not self.done.done():
            self._tally.wrong += 1
            self.done.set_result(None)

    def on_body(self, data: bytes) -> None:
        """Look for the first content; keep the end."""
        if self._first == 0.0 and (not self._stream or b"word0 " in data):
            self._first = time.perf_counter()
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Check the answer and ask again."""
        now = time.perf_counter()
        body = b"".join(self._body)
        good = LAST_WORD in body and (
            body.count(b'"content":"word') == CHUNKS and b"[DONE]" in body[-40:]
            if self._stream
            else self._parser.get_status_code() == 200
        )
        if good:
            self._tally.first_s.append(self._first - self._started)
            self._tally.total_s.append(now - self._started)
        else:
            self._tally.wrong += 1
            self._tally.sample = body[:300].decode("utf-8", "replace")
        self._ask()

    def _ask(self) -> None:
        if self._tally.left == 0:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._tally.left -= 1
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._first = 0.0
        self._started = time.perf_counter()
        self._transport.write(self._request)


async def ask(plan: Plan, key: str) -> dict[str, Any]:
    """Run a plan and return what was measured."""
    parts = urlsplit(plan.url)
    words: dict[str, Any] = {
        "model": plan.model,
        "messages": [{"role": "user", "content": "a" * plan.prompt_bytes}],
        "max_tokens": CHUNKS,
    }
    if plan.stream:
        words |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(words).encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    tally = Tally(plan.requests)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    askers = []
    for _ in range(min(plan.connections, plan.requests)):
        _transport, asker = await loop.create_connection(
            lambda: Asker(head.encode() + body, plan.stream, tally),
            parts.hostname or "127.0.0.1",
            parts.port or 80,
        )
        askers.append(asker)
    await asyncio.gather(*(asker.done for asker in askers))
    seconds = time.perf_counter() - started
    return {
        "requests": len(tally.total_s),
        "wrong": tally.wrong,
        "sample": tally.sample,
        "seconds": seconds,
        "first_ms": _percentiles(tally.first_s),
        "total_ms": _percentiles(tally.total_s),
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds) or [0.0]
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    last = len(ordered) - 1
    return {name: round(ordered[round(last * share)] * 1000, 3) for name, share in at.items()}


def main() -> None:
    """Read the command line and print the result."""
    parser = argparse.ArgumentParser(description="Load for benchmarks.")
    parser.add_argument("--url", required=True, help="the whole URL of the chat route")
    parser.add_argument("--model", required=True)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--prompt-bytes", type=int, default=1024)
    given = parser.parse_args()
    plan = Plan(**vars(given))
    result = uvloop.run(ask(plan, os.environ.get(KEY_VARIABLE, "")))
    print(json.dumps(result))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
