"""What adapters of Google's generateContent wire owe beside the laws of every backend."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backends.base import Backend
from backends.errors import BackendError, ContentFiltered, EndpointRejected, StreamTruncated
from backends.types import Finish
from tests.contracts.backend_contract import (
    BackendContract,
    Case,
    Rig,
    everything,
    into,
    replace_request,
    texts,
)
from tests.upstream import Exchange, Script, Upstream, data, replies, serving, streams


def said(text: str | None, n: int = 1, **more: Any) -> dict[str, Any]:
    """Return a chunk with a piece of text, or the end, of each of ``n`` candidates."""
    if text is None:
        candidates: list[dict[str, Any]] = [{"finishReason": "stop", "index": i} for i in range(n)]
    else:
        content = {"parts": [{"text": text}], "role": "model"}
        candidates = [{"content": content, "index": i} for i in range(n)]
    return {"candidates": candidates, "modelVersion": "up-model", "responseId": "up-1", **more}


def answer(*pieces: str, n: int = 1, counted: bool = True) -> list[bytes]:
    """Return the events of a whole answer."""
    count = {"promptTokenCount": 7, "candidatesTokenCount": len(pieces) * n}
    last = said(None, n, **({"usageMetadata": count} if counted else {}))
    return [crlf(said(piece, n)) for piece in pieces] + [crlf(last)]


def crlf(document: Any) -> bytes:
    """Return an event with Google's line ends."""
    return data(document).replace(b"\n", b"\r\n")


class GeminiWireContract(BackendContract):
    """The laws, played in Google's own bytes."""

    path: str
    """Where it asks."""

    @abstractmethod
    def build(self, upstream: Upstream) -> Backend:
        """Return a backend that asks this server."""

    @asynccontextmanager
    async def asking(self, *scripts: Script) -> AsyncIterator[tuple[Backend, Upstream]]:
        """Give a backend before a scripted server."""
        async with serving(*scripts) as upstream:
            backend = self.build(upstream)
            try:
                yield backend, upstream
            finally:
                await backend.aclose()

    @asynccontextmanager
    async def upstream(self, case: Case) -> AsyncIterator[Rig]:
        """Play the case over the wire."""
        async with self.asking(lambda exchange: _play(case, exchange)) as (backend, upstream):

            async def left() -> None:
                await (await upstream.exchange()).gone.wait()

            yield Rig(backend, left)

    async def failure(self, *scripts: Script) -> BackendError:
        """Return the error that an answer ends with."""
        async with self.asking(*scripts) as (backend, _):
            with pytest.raises(BackendError) as caught:
                await into([], backend)
        return caught.value

    async def test_the_request_is_of_the_wire(self) -> None:
        """The URL names the model and asks for a stream of events; the body is Google's."""
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            await everything(backend)
        [request] = upstream.requests
        assert (request.method, request.path) == ("POST", self.path)
        assert request.json() == {
            "contents": [{"role": "user", "parts": [{"text": "Grüß Gott"}]}],
            "generationConfig": {"maxOutputTokens": 64},
        }
        assert request.headers["x-request-id"] == "req-1"

    async def test_no_output_limit_is_made_up(self) -> None:
        """Without a bound for this attempt none is sent."""
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            await everything(backend, replace_request(output_bound=None))
        assert "generationConfig" not in upstream.requests[0].json()

    async def test_vendor_options_reach_only_the_endpoint_they_name(self) -> None:
        """By its slug."""
        mine = {"labels": {"team": "a"}}
        preferences = type(replace_request().provider)(options={"acme": mine, "b": {"labels": {}}})
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            await everything(backend, replace_request(provider=preferences))
        assert upstream.requests[0].json()["labels"] == {"team": "a"}

    async def test_an_answer_may_come_as_an_array(self) -> None:
        """From a server that does not heed ``alt=sse``."""
        pieces = b",".join(event[6:].strip() for event in answer("eins ", "zwei"))
        body = b"[" + pieces + b"]"
        for script in (
            streams(*(body[i : i + 7] for i in range(0, len(body), 7))),
            replies(200, body),
        ):
            async with self.asking(script) as (backend, _):
                events = await everything(backend)
            assert texts(events) == ["eins ", "zwei"]
            assert isinstance(events[-1], Finish)

    async def test_a_wrong_key_is_no_wrong_request(self) -> None:
        """Google says 400 of it; the endpoint is at fault, and the next one is asked."""
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}
        failure = await self.failure(replies(400, {"error": {**error, "details": [{}, info]}}))
        assert isinstance(failure, EndpointRejected)
        assert failure.message == "API key not valid."

    async def test_the_time_to_wait_may_stand_in_the_body(self) -> None:
        """As ``RetryInfo``, in seconds."""
        wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
        failure = await self.failure(replies(429, {"error": {"code": 429, "details": [wait]}}))
        assert failure.retry_after_s == 34.5

    async def test_a_blocked_prompt_ends_the_request(self) -> None:
        """Asking elsewhere would be a way around it."""
        blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
        failure = await self.failure(streams(crlf(blocked)))
        assert isinstance(failure, ContentFiltered)
        assert not failure.move_on

    async def test_a_promised_body_that_stops_short_is_truncated(self) -> None:
        """Also where the finish reason had arrived: the end was not clean."""

        async def script(exchange: Exchange) -> None:
            await exchange.head()
            await exchange.send(*answer("ok"))
            exchange.cut()

        assert isinstance(await self.failure(script), StreamTruncated)


async def _play(case: Case, exchange: Exchange) -> None:
    if case.fail == "status":
        wait = {} if case.retry_after_s is None else {"Retry-After": f"{case.retry_after_s:g}"}
        await replies(case.status, {"error": {"message": "as scripted"}}, wait)(exchange)
        return None
    if case.after == 0 and case.fail == "reset":
        exchange.reset()
        return None
    if case.after == 0 and case.fail == "stall":
        await exchange.hang()
        return None
    config = exchange.request.json().get("generationConfig", {})
    n = config.get("candidateCount", 1)
    await exchange.head()
    events = answer(*case.pieces, n=n, counted=case.counted)
    for number, event in enumerate(events):
        if case.fail is not None and case.after == number:
            match case.fail:
                case "garbage":
                    await exchange.send(b"data: [garbage, not JSON\r\n\r\n")
                case "stall":
                    return await exchange.hang()
                case "cut":
                    return await exchange.end()
                case _:
                    return exchange.reset()
        await exchange.send(event)
    return await exchange.end()
