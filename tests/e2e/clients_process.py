"""Many clients in a process of their own: ``python -m tests.e2e.clients_process``.

``--part clock`` reads streams of `upstream_process` to their ends and prints ``open`` when all of
them have begun, ``half`` in the middle, and at the end what they saw as one JSON line.

``--part slow`` reads 1 KB a second from each connection on a small socket buffer, prints ``open``
when all have had a first byte and ``read`` when each has had ten pieces, and goes on until its
input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import uvloop

KEY_VARIABLE = "TOLLWAY_API_KEY"
AT_ONCE = 64
"""So many streams wait for their first chunk at once."""

LOOK_S = 0.02
PIECE_BYTES, PIECES, PERIOD_S = 1024, 10, 1.0
STAMP = re.compile(rb'"t(\d+) "')
END = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Seen:
    """What all clients saw."""

    half: int
    """After so many chunks we say that we are in the middle."""

    chunks: int = 0
    complete: int = 0
    wrong: list[str] = field(default_factory=list)
    gap_s: float = 0.0
    """The longest time between two chunks beyond what the upstream left between them."""

    delay_s: float = 0.0
    """The longest way of a chunk, from the upstream's write to our read."""

    late_s: float = 0.0
    """How late our own loop was at most: so much of the rest is ours."""


class Reader(asyncio.Protocol):
    """One stream that tells the time."""

    def __init__(self, request: bytes, chunks: int, seen: Seen) -> None:
        """``request`` is a whole HTTP request."""
        self._request, self._chunks, self._seen = request, chunks, seen
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self._unread = b""
        self._had = 0
        self._last = (0, 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop has one of its own
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Look for stamps and for the end."""
        now = time.monotonic_ns()
        self._unread += data
        after = 0
        for found in STAMP.finditer(self._unread):
            self._stamp(int(found[1]), now)
            after = found.end()
        self._unread = self._unread[after:]
        if b"data: [DONE]" in self._unread and self._unread.endswith(END):
            if self._had == self._chunks:
                self._seen.complete += 1
            self._unread = b""
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Over, complete or not."""
        if self._unread:
            self._seen.wrong.append(self._unread[-500:].decode("utf-8", "replace"))
        for future in (self.begun, self.over):
            if not future.done():
                future.set_result(None)

    def _stamp(self, sent: int, now: int) -> None:
        seen, (sent_before, now_before) = self._seen, self._last
        self._had += 1
        seen.chunks += 1
        if seen.chunks == seen.half:
            print("half", flush=True)
        seen.delay_s = max(seen.delay_s, (now - sent) / 1e9)
        if now_before:
            gap = (now - now_before) - (sent - sent_before)
            seen.gap_s = max(seen.gap_s, gap / 1e9)
        elif not self.begun.done():
            self.begun.set_result(None)
        self._last = (sent, now)


def request(url: str, model: str, max_tokens: int) -> bytes:
    """Return a request for a stream as it stands on the wire."""
    body = json.dumps(
        {
            "model": model,
            "stream": True,
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": "a"}],
        }
    ).encode()
    key = os.environ[KEY_VARIABLE]
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def address(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def read_clocks(url: str, streams: int, chunks: int) -> Seen:
    """Read so many streams at once to their ends."""
    loop = asyncio.get_running_loop()
    seen, readers, few = Seen(streams * chunks // 2), [], asyncio.Semaphore(AT_ONCE)
    words = request(url, "clock", chunks)

    async def open_one() -> None:
        async with few:
            _, reader = await loop.create_connection(
                lambda: Reader(words, chunks, seen), *address(url)
            )
            readers.append(reader)
            await reader.begun

    await asyncio.gather(*(open_one() for _ in range(streams)))
    print("open", flush=True)
    watch = asyncio.create_task(_watch_ourselves(seen))
    await asyncio.gather(*(reader.over for reader in readers))
    watch.cancel()
    return seen


async def _watch_ourselves(seen: Seen) -> None:
    while True:
        due = time.monotonic() + LOOK_S
        await asyncio.sleep(LOOK_S)
        seen.late_s = max(seen.late_s, time.monotonic() - due)


class Crowd:
    """Readers that take a little every second."""

    def __init__(self, url: str, readers: int) -> None:
        """Connect to ``url``."""
        self._url, self._readers = url, readers
        self._first = self._tenth = 0

    async def read(self) -> None:
        """Read until cancelled."""
        words = request(self._url, "flood", 1_000_000)
        async with asyncio.TaskGroup() as group:
            for number in range(self._readers):
                group.create_task(self._slowly(words, number / self._readers))

    async def _slowly(self, words: bytes, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.closing(socket.socket()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, address(self._url))
            await loop.sock_sendall(sock, words)
            pieces = 0
            last = b""
            while data := await loop.sock_recv(sock, PIECE_BYTES):
                last = data
                pieces += 1
                self._first += pieces == 1
                self._tenth += pieces == PIECES
                if pieces == 1 and self._first == self._readers:
                    print("open", flush=True)
                if pieces == PIECES and self._tenth == self._readers:
                    print("read", flush=True)
                await asyncio.sleep(wait_s if pieces == 1 else PERIOD_S)
            raise ConnectionError(f"a slow reader was cut after {pieces} pieces: {last[-300:]!r}")


async def read_slowly(url: str, readers: int) -> None:
    """Read until our input ends."""
    loop = asyncio.get_running_loop()
    reading = asyncio.create_task(Crowd(url, readers).read())
    leave: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sys.stdin, lambda: leave.done() or leave.set_result(None))
    _ = await asyncio.wait((reading, leave), return_when=asyncio.FIRST_COMPLETED)
    if reading.done():
        await reading
    reading.cancel()
    _ = await asyncio.wait((reading,))


def main() -> None:
    """Read the command line and play the part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("clock", "slow"), required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--chunks", type=int, default=0)
    given = parser.parse_args()
    if given.part == "slow":
        uvloop.run(read_slowly(given.url, given.clients))
        return
    seen = uvloop.run(read_clocks(given.url, given.clients, given.chunks))
    print(
        json.dumps(
            {
                "chunks": seen.chunks,
                "complete": seen.complete,
                "wrong": seen.wrong[:3],
                "gap_ms": round(seen.gap_s * 1000, 1),
                "delay_ms": round(seen.delay_s * 1000, 1),
                "client_late_ms": round(seen.late_s * 1000, 1),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
