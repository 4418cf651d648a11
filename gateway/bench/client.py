"""A client that costs little: one connection, one request at a time, and what came back."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

import httptools

from gateway.bench.upstream import CHUNKS

_CONTENT: Final = re.compile(rb'"(?:content|reasoning|reasoning_content)": ?"(?!")')
_FINISH: Final = re.compile(rb'"finish_reason": ?"')
_ERROR: Final = re.compile(rb'"error": ?\{')
"""Quotes in an answer's words are escaped, so no word can look like one of these."""

_LAST_WORD: Final = f"word{CHUNKS - 1} ".encode()


MOST_ANSWER_BYTES: Final = 64 * 2**20
"""An answer that grows beyond it is broken off."""


class Open(Protocol):
    """Counts streams whose first content is there and whose end is not."""

    open: int
    most_open: int


@dataclass(slots=True)
class Answer:
    """One answer, or as much as came of it."""

    status: int = 0
    body: bytes = b""
    first_s: float = 0.0
    """When its first content was there, 0 without any."""

    total_s: float = 0.0
    whole: bool = False
    """Whether HTTP says that it is complete."""

    def pieces(self) -> int:
        """Count the pieces of content."""
        return len(_CONTENT.findall(self.body))

    def said(self) -> str:
        """Return an error's message, or what else there is, shortened."""
        try:
            return str(json.loads(self.body)["error"]["message"])[:300]
        except (ValueError, KeyError, TypeError):
            return self.body[-300:].decode("utf-8", "replace")


Judge = Callable[[Answer, bool], tuple[str, str] | None]
"""Returns what is wrong with an answer (its kind, and words), or None."""


def complete(answer: Answer, stream: bool) -> tuple[str, str] | None:
    """Any complete answer is right: 200, a reason to finish, and an end of the stream."""
    if answer.status == 0 or not answer.whole:
        return "broken off", f"the connection was lost after {len(answer.body)} bytes of an answer"
    if answer.status != 200:
        return str(answer.status), answer.said()
    if stream and not answer.body.rstrip().endswith(b"data: [DONE]"):
        return "broken off", answer.said()
    if _ERROR.search(answer.body):
        return "broken off", answer.said()
    if not _FINISH.search(answer.body):
        return "unfinished", answer.said()
    return None


def bench_words(answer: Answer, stream: bool) -> tuple[str, str] | None:
    """Only the bench upstream's words are right, all of them, each in a chunk of its own."""
    fault = complete(answer, stream)
    if fault is not None:
        return fault
    if _LAST_WORD not in answer.body:
        return "wrong words", answer.said()
    pieces = answer.pieces()
    if pieces != (CHUNKS if stream else 1):
        return "wrong pieces", f"{pieces} pieces of content: {answer.said()}"
    return None


@dataclass(slots=True)
class _Now:
    """The answer that is being received."""

    started: float
    parser: httptools.HttpResponseParser
    done: asyncio.Future[Answer]
    answer: Answer = field(default_factory=Answer)
    body: list[bytes] = field(default_factory=list)
    size: int = 0


class Asker(asyncio.Protocol):
    """One connection."""

    def __init__(self, stream: bool, nagle: bool, open: Open) -> None:  # noqa: A002 - its name
        """``open`` counts the streams of all connections."""
        self._stream, self._nagle, self._open = stream, nagle, open
        self._now: _Now | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Both event loops turn Nagle's algorithm off; turn it on where it is wanted."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop has one of its own
        if self._nagle:
            handle = os.dup(transport.get_extra_info("socket").fileno())
            with socket.socket(fileno=handle) as raw:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)

    def ask(self, request: bytes, started: float) -> asyncio.Future[Answer]:
        """Send a request; the answer's times count from ``started``."""
        done = asyncio.get_running_loop().create_future()
        self._now = _Now(started, httptools.HttpResponseParser(self), done)
        self._transport.write(request)
        if self.closed:
            self._end()
        return done

    def close(self) -> None:
        """Close the connection; an answer under way is broken off."""
        self.closed = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; bytes that are not HTTP break the answer off."""
        if self._now is None:
            self.close()
            return
        try:
            self._now.parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """End the answer with what came of it."""
        del error
        self.closed = True
        self._end()

    def on_headers_complete(self) -> None:
        """Keep the status."""
        assert self._now is not None
        self._now.answer.status = self._now.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Keep it; look for the first content."""
        now = self._now
        assert now is not None
        now.body.append(data)
        now.size += len(data)
        if now.size > MOST_ANSWER_BYTES:
            self.close()
            return
        if now.answer.first_s == 0.0 and self._stream and _CONTENT.search(data):
            now.answer.first_s = time.perf_counter() - now.started
            self._open.open += 1
            self._open.most_open = max(self._open.most_open, self._open.open)

    def on_message_complete(self) -> None:
        """End the answer; a server may want the connection closed."""
        now = self._now
        assert now is not None
        now.answer.whole = True
        if not now.parser.should_keep_alive():
            self.close()
        self._end()

    def _end(self) -> None:
        now, self._now = self._now, None
        if now is None:
            return
        answer = now.answer
        answer.total_s = time.perf_counter() - now.started
        answer.body = b"".join(now.body)
        if answer.first_s:
            self._open.open -= 1
        if not now.done.done():
            now.done.set_result(answer)
