"""An upstream that costs next to nothing: ``python -m gateway.bench.upstream --port N``.

The model's name chooses the answer: ``whole``, ``burst`` (64 chunks in one write) or ``paced``
(64 chunks, one every 5 ms), or ``held`` (64 chunks, one every 50 ms: many streams stay open at
once). A name that ends in one of these works, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Final, cast

import httptools
import uvloop

CHUNKS: Final = 64
PACE_S: Final = 0.005
HELD_S: Final = 0.05
BACKLOG: Final = 4096
"""A gateway may open hundreds of connections at once; one that is not accepted is lost."""

_WORDS = [f"word{number} " for number in range(CHUNKS)]
_USAGE = {"prompt_tokens": 10, "completion_tokens": CHUNKS, "total_tokens": 10 + CHUNKS}


def _event(choices: list[object], **more: object) -> bytes:
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _delta(content: dict[str, str], reason: str | None = None) -> list[object]:
    return [{"index": 0, "delta": content, "finish_reason": reason}]


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


PIECES: Final = tuple(
    _framed(_event(_delta({"role": "assistant", "content": word}))) for word in _WORDS
)
END: Final = (
    _framed(_event(_delta({}, "stop")))
    + _framed(_event([], usage=_USAGE))
    + _framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _whole() -> bytes:
    message = {"role": "assistant", "content": "".join(_WORDS)}
    body = json.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1,
            "model": "bench",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _USAGE,
        }
    ).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


_WHOLE = _whole()
_HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
_BURST = _HEAD + b"".join(PIECES) + END


class Upstream(asyncio.Protocol):
    """Answers each request on a connection by the name of its model."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read requests."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop has one of its own
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Start a new body."""
        self._body = []

    def on_body(self, data: bytes) -> None:
        """Collect the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Answer; whatever is no chat request is a look at its health."""
        if not self._body:
            self._transport.write(_HEALTHY)
            return
        request = json.loads(b"".join(self._body))
        model = str(request["model"])
        if not request.get("stream"):
            self._transport.write(_WHOLE)
        elif model.endswith("paced"):
            self._transport.write(_HEAD)
            self._pace(0, PACE_S)
        elif model.endswith("held"):
            self._transport.write(_HEAD)
            self._pace(0, HELD_S)
        else:
            self._transport.write(_BURST)

    def _pace(self, number: int, pace_s: float) -> None:
        if self._transport.is_closing():
            return
        if number == CHUNKS:
            self._transport.write(END)
            return
        self._transport.write(PIECES[number])
        asyncio.get_running_loop().call_later(pace_s, self._pace, number + 1, pace_s)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        Upstream, "127.0.0.1", port, backlog=BACKLOG
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An upstream for benchmarks.")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))
