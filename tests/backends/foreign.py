"""The contract for wires that are not OpenAI's: one choice an answer, and words of their own."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backends.base import Backend
from backends.collect import Collector
from backends.errors import Unsupported
from backends.types import ChoiceEnd, Finish, ResponseStart
from tests.contracts.backend_contract import (
    BackendContract,
    Case,
    Rig,
    everything,
    replace_request,
    texts,
)
from tests.upstream import Exchange, Script, Upstream, replies, serving

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "lamp"}},
]
"""One with what is usual, one with what is sure to be there."""

CUSTOM: dict[str, Any] = {"type": "custom", "custom": {"name": "sql"}}
_CALL = {"name": "clock", "arguments": '{"zone": "UTC"}'}
CALLED: tuple[dict[str, Any], ...] = (
    {"role": "user", "content": "What time is it?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": _CALL}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
)
"""A conversation in which a tool was called."""


class ForeignContract(BackendContract):
    """Give the backend, the wire's word for an end, and how it writes events."""

    word = ""
    """How the wire says that an answer is complete."""

    @abstractmethod
    def build(self, upstream: Upstream) -> Backend:
        """Return a backend that asks this server."""

    @abstractmethod
    def piece(self, text: str) -> bytes:
        """Return the bytes of one piece of text."""

    @abstractmethod
    def closing(self, case: Case) -> list[bytes]:
        """Return the events after the last piece: the end, with the counts 7 and one a piece."""

    @abstractmethod
    def garbage(self) -> bytes:
        """Return an event that is not JSON."""

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

        async def script(exchange: Exchange) -> None:
            await self._play(case, exchange)

        async with self.asking(script) as (backend, upstream):

            async def left() -> None:
                await (await upstream.exchange()).gone.wait()

            yield Rig(backend, left)

    async def test_an_answer_starts_once_and_finishes_once(self) -> None:
        """As the contract has it, with the wire's own word beside the reason."""
        case = Case()
        async with self.upstream(case) as rig:
            events = await everything(rig.backend)
        assert isinstance(events[0], ResponseStart)
        finish = events[-1]
        assert isinstance(finish, Finish)
        assert [type(e) for e in events].count(ResponseStart) == 1
        assert [type(e) for e in events].count(Finish) == 1
        assert "".join(texts(events)) == "".join(case.pieces)
        assert finish.choices == (ChoiceEnd(0, "stop", self.word),)
        assert finish.dropped_events == 0

    async def test_a_collected_answer_is_its_stream(self) -> None:
        """A whole answer adds up to what was streamed."""
        async with self.upstream(Case()) as rig:
            events = await everything(rig.backend)
        collector = Collector()
        collector.add(events)
        [one] = collector.answer().choices
        assert (one.text, one.reason, one.raw_reason) == ("eins zwei drei ", "stop", self.word)

    async def test_every_choice_speaks_and_ends(self) -> None:
        """The wire has one answer a request, and the backend claims no more."""
        async with self.upstream(Case()) as rig:
            claimed = rig.backend.capabilities.fields
        assert claimed is not None
        assert "n" not in claimed

    async def test_tools_reach_the_upstream_where_they_are_claimed(self) -> None:
        """Functions by name, and of earlier turns the calls and their results."""
        async with self.asking(self._answers) as (backend, upstream):
            claimed = backend.capabilities.fields
            if claimed is None or "tools" not in claimed:
                pytest.skip("it claims no tools")
            await everything(backend, replace_request(messages=CALLED, params={"tools": TOOLS}))
        body = json.dumps(upstream.requests[0].json(), ensure_ascii=False)
        assert all(word in body for word in ("clock", "lamp", "UTC", "noon"))

    async def test_a_tool_of_a_type_that_is_not_claimed_is_refused(self) -> None:
        """It comes where the caller allows fields to be dropped, and is no fault of ours."""
        async with self.asking(self._answers) as (backend, _):
            claimed = backend.capabilities.fields
            if claimed is None or "tools" not in claimed or "tools.custom" in claimed:
                pytest.skip("it claims no tools, or all")
            with pytest.raises(Unsupported):
                await everything(backend, replace_request(params={"tools": [CUSTOM]}))

    async def _answers(self, exchange: Exchange) -> None:
        await self._play(Case(), exchange)

    async def _play(self, case: Case, exchange: Exchange) -> None:
        if case.fail == "status":
            wait = {} if case.retry_after_s is None else {"Retry-After": f"{case.retry_after_s:g}"}
            await replies(case.status, {"error": "as scripted"}, wait)(exchange)
            return
        if case.after == 0 and case.fail == "reset":
            exchange.reset()
            return
        if case.after == 0 and case.fail == "stall":
            await exchange.hang()
            return
        await exchange.head()
        for number, text in enumerate((*case.pieces, None)):
            if case.fail is not None and case.after == number:
                match case.fail:
                    case "garbage":
                        await exchange.send(self.garbage())
                    case "stall":
                        await exchange.hang()
                        return
                    case "cut":
                        await exchange.end()
                        return
                    case _:
                        exchange.reset()
                        return
            if text is not None:
                await exchange.send(self.piece(text))
        await exchange.send(*self.closing(case))
        await exchange.end()


def line(document: Any) -> bytes:
    """Return a JSON document on a line of its own."""
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"
