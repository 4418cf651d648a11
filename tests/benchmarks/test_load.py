"""The bench's upstream and load over real sockets: right answers are right, others are not."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.bench import cost, load
from gateway.bench.client import Answer, bench_words, complete
from gateway.bench.load import Plan, ask, percentiles
from gateway.bench.upstream import CHUNKS, Upstream

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[str]:
    """Serve a protocol and give the URL of its chat route."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"


class Says(asyncio.Protocol):
    """Says the same to whatever it hears, and hangs up if told so."""

    def __init__(self, words: bytes, hang_up: bool = False) -> None:
        """Keep what to say."""
        self._words, self._hang_up = words, hang_up

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Say it."""
        self._transport.write(self._words)
        if self._hang_up:
            self._transport.close()


def reply(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    """A whole HTTP answer."""
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@pytest.mark.parametrize("rate", [0.0, 500.0])
@pytest.mark.parametrize("prompt_bytes", [10, 102_400])
@pytest.mark.parametrize("shape", ["whole", "burst", "paced"])
async def test_every_answer_of_the_upstream_is_asked_for_and_right(
    shape: str, prompt_bytes: int, rate: float
) -> None:
    """In closed and open loops; the pieces are counted."""
    async with serving(Upstream) as url:
        plan = Plan(
            url=url,
            model=f"x/{shape}",
            stream=shape != "whole",
            connections=4,
            requests=6,
            per_second=rate,
            prompt_bytes=prompt_bytes,
            firsts=True,
        )
        result = await ask(plan)
    assert (result["requests"], result["begun"], result["wrong"]) == (6, 6, {})
    assert result["pieces"] == 6 * (1 if shape == "whole" else CHUNKS)
    assert len(result["firsts_ms"]) == 6
    if shape == "paced":
        assert 1 <= result["most_open"] <= 4
        assert result["first_ms"]["p50"] < result["total_ms"]["p50"]


async def test_the_prompt_has_the_size_that_was_asked_for() -> None:
    """And the request its key, model and bound."""
    request = load._request(Plan(url="http://h:1/v1/x", model="m", key="k", prompt_bytes=1_000))
    head, _, body = request.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer k\r\n")
    assert len(document["messages"][0]["content"]) == 1_000
    assert (document["model"], document["max_tokens"], document["stream"]) == ("m", CHUNKS, True)


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (reply(b'{"error": {"message": "no key"}}', "401 Unauthorized"), "401", "no key"),
        (reply(b"data: [DONE]\n\n"), "unfinished", "[DONE]"),
        (reply(b'data: {"choices": []}\n\n'), "broken off", "choices"),
        (
            reply(b'data: {"error": {"message": "it broke"}}\n\ndata: [DONE]\n\n'),
            "broken off",
            "it broke",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "broken off", "4 bytes"),
        (b"this is no HTTP\r\n\r\n", "broken off", "0 bytes"),
    ],
)
async def test_an_answer_that_is_not_complete_is_counted_with_its_words(
    words: bytes, kind: str, said: str
) -> None:
    """By status, or by what else is wrong."""
    async with serving(lambda: Says(words, hang_up=kind == "broken off")) as url:
        plan = Plan(url=url, model="m", connections=1, requests=4, any_words=True)
        result = await ask(plan)
    assert result["wrong"] == {kind: 4}
    assert said in result["said"][kind]
    assert result["requests"] == 0


async def test_a_server_may_close_the_connection_after_each_answer() -> None:
    """The load connects again and no answer is lost."""
    body = b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'
    words = reply(body, more="connection: close\r\n")
    async with serving(lambda: Says(words, hang_up=True)) as url:
        plan = Plan(url=url, model="m", stream=False, connections=2, requests=5, any_words=True)
        result = await ask(plan)
    assert (result["requests"], result["wrong"]) == (5, {})


async def test_nobody_there_is_an_error_and_no_figure() -> None:
    """The first connection tells."""
    async with serving(Upstream) as url:
        pass
    with pytest.raises(OSError, match=r"refused|Connect"):
        await ask(Plan(url=url, model="burst"))


def event(content: str) -> bytes:
    """A chunk as the upstream writes it."""
    return b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % content.encode()


END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ALL = [event(f"word{number} ") for number in range(CHUNKS)]


def test_the_bench_demands_every_word_in_a_chunk_of_its_own() -> None:
    """A gateway that merges or drops chunks does less work."""
    assert bench_words(Answer(200, b"".join(ALL) + END, whole=True), True) is None
    merged = b"".join(ALL[:-2]) + event(f"word{CHUNKS - 2} word{CHUNKS - 1} ") + END
    for body in (b"".join(ALL[1:]) + END, b"".join(ALL[:-1]) + END, merged):
        assert complete(Answer(200, body, whole=True), True) is None
        assert bench_words(Answer(200, body, whole=True), True) is not None


def test_words_that_look_like_errors_are_words() -> None:
    """Quotes in an answer are escaped."""
    body = event(r"{\"error\": {\"message\": \"x\"}}") + END
    assert complete(Answer(200, body, whole=True), True) is None


def test_percentiles_are_of_the_nearest_rank() -> None:
    """In milliseconds; zeros of nothing."""
    assert percentiles([number / 1000 for number in range(101)]) == {
        "p50": 50.0,
        "p90": 90.0,
        "p99": 99.0,
    }
    assert percentiles([]) == {"p50": 0.0, "p90": 0.0, "p99": 0.0}


def test_cpu_and_memory_are_those_of_the_process() -> None:
    """CPU as the process itself counts it, and no process that is gone."""
    before = time.process_time()
    read = cost.cpu_s([os.getpid()])
    assert before <= read <= time.process_time()
    assert cost.rss_bytes([os.getpid()]) > 1_000_000
    assert os.getpid() in cost.tree(os.getppid())
    assert cost.tree(2**22 + 1) == []
