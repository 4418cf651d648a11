"""An upstream for many streams, a process of its own: ``python -m tests.e2e.upstream_process``.

It prints its port. The model's name chooses the part. ``clock`` sends as many chunks as
``max_tokens`` says, each the time at which it was sent (CLOCK_MONOTONIC, which all processes
share): one at once, and after a line on our input one per ``--pace-ms``, the streams evenly spread
over that time. ``flood`` sends as fast as the reader takes it and never ends. ``burst`` is the
bench's answer, in one write.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import cast

import httptools
import uvloop

from gateway.bench import upstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FLOOD_BYTES = 4_000


def event(document: object) -> bytes:
    """Return one event as one chunk of the body."""
    data = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def delta(text: str, reason: str | None = None) -> bytes:
    """Return an event with a piece of text, or with the reason to finish."""
    words = {} if reason else {"content": text}
    return event({"choices": [{"index": 0, "delta": words, "finish_reason": reason}]})


def end(tokens: int) -> bytes:
    """Return the end of an answer that reports so many tokens."""
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}
    last = delta("", "stop") + event({"choices": [], "usage": usage})
    return last + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


BURST = b"".join(upstream.PIECES) + upstream.END
FLOOD = delta("x" * FLOOD_BYTES)


class Upstream(asyncio.Protocol):
    """Answers each request on a connection by the name of its model."""

    def __init__(self, pace_s: float, waiting: list[Callable[[float], object]]) -> None:
        """Send a chunk of ``clock`` every ``pace_s``; what is left in ``waiting`` starts it."""
        self._pace_s, self._waiting = pace_s, waiting
        self._left = self._tokens = 0
        self._writable = True
        self._flooding = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read requests."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop has one of its own
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """Collect the body."""
        self._body += data

    def on_message_complete(self) -> None:
        """Play the part."""
        request, self._body = json.loads(self._body), b""
        self._transport.write(HEAD)
        if request["model"] == "clock":
            self._left = self._tokens = int(request["max_tokens"])
            self._stamp()
            self._waiting.append(self._tell_time)
        elif request["model"] == "burst":
            self._transport.write(BURST)
        else:
            self._flooding = True
            self._flood()

    def _stamp(self) -> None:
        self._transport.write(delta(f"t{time.monotonic_ns()} "))
        self._left -= 1

    def _tell_time(self, due: float) -> None:
        if self._transport.is_closing():
            return
        if self._left == 0:
            self._transport.write(end(self._tokens))
            return
        self._stamp()
        due += self._pace_s
        asyncio.get_running_loop().call_at(due, self._tell_time, due)

    def _flood(self) -> None:
        while self._writable and not self._transport.is_closing():
            self._transport.write(FLOOD)

    def pause_writing(self) -> None:
        """The reader has had enough."""
        self._writable = False

    def resume_writing(self) -> None:
        """The reader wants more."""
        self._writable = True
        if self._flooding:
            # In the loop's next turn: a fast reader must not keep us from the others.
            asyncio.get_running_loop().call_soon(self._flood)


async def serve(pace_s: float) -> None:
    """Print the port and serve until our input ends."""
    loop = asyncio.get_running_loop()
    waiting: list[Callable[[float], object]] = []
    server = await loop.create_server(
        lambda: Upstream(pace_s, waiting), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        while await loop.run_in_executor(None, sys.stdin.readline):
            for number, tell_time in enumerate(waiting):
                due = loop.time() + pace_s * number / len(waiting)
                loop.call_at(due, tell_time, due)
            waiting.clear()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pace-ms", type=int, required=True)
    uvloop.run(serve(parser.parse_args().pace_ms / 1000))
