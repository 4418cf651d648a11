"""What every backend must do.

Inherit `BackendContract` and give the fixture `upstream`: a function that takes a `Case` and
returns an async context manager of a `Rig`. Backends of the OpenAI chat wire over HTTP inherit
`OpenAIWireContract` instead, and give `build`, which points a backend at a scripted server.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import msgspec
import pytest

from backends import transport
from backends.base import Backend, EventBatches
from backends.collect import Collector
from backends.errors import (
    BackendError,
    ConnectionFailed,
    ContentFiltered,
    ContextLengthExceeded,
    EndpointRejected,
    ProtocolError,
    RateLimited,
    RequestRejected,
    StreamTruncated,
    UpstreamFailed,
)
from backends.types import (
    ChatRequest,
    ChoiceEnd,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from tests.upstream import (
    DONE,
    Exchange,
    Script,
    Upstream,
    answer,
    choice,
    chunk,
    data,
    delta,
    replies,
    serving,
    streams,
    usage,
)

pytestmark = pytest.mark.anyio

NEVER = 1e9
"""A deadline, in the event loop's seconds, that no test reaches."""

REQUEST = ChatRequest(
    models=("acme/chat",),
    messages=({"role": "user", "content": "Grüß Gott"},),
    params={},
    required=frozenset(),
    prompt_bytes=28,
    content_bytes=28,
    max_tokens=64,
    output_bound=64,
    request_id="req-1",
    account="acme",
)

STATUSES: dict[int, tuple[type[BackendError], bool, bool]] = {
    400: (RequestRejected, False, False),
    401: (EndpointRejected, False, True),
    402: (EndpointRejected, False, True),
    403: (EndpointRejected, False, True),
    404: (EndpointRejected, False, True),
    408: (UpstreamFailed, True, True),
    409: (UpstreamFailed, True, True),
    413: (RequestRejected, False, False),
    422: (RequestRejected, False, False),
    425: (UpstreamFailed, True, True),
    429: (RateLimited, True, True),
    500: (UpstreamFailed, True, True),
    502: (UpstreamFailed, True, True),
    503: (UpstreamFailed, True, True),
    529: (UpstreamFailed, True, True),
}
"""Status: its error, whether to try again here, whether to move on (design decision 10)."""


@dataclass(frozen=True, slots=True)
class Case:
    """What an upstream shall do, in words that every kind understands."""

    pieces: tuple[str, ...] = ("eins ", "zwei ", "drei ")
    counted: bool = True
    fail: Literal["status", "reset", "stall", "cut", "garbage"] | None = None
    after: int = 0
    """Pieces that are sent before it fails."""

    status: int = 500
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rig:
    """A backend before its upstream, and a way to see that the upstream was left."""

    backend: Backend
    left: Callable[[], Awaitable[None]]
    """Returns once the upstream has noticed that nobody listens any more."""


async def everything(backend: Backend, request: ChatRequest = REQUEST) -> list[StreamEvent]:
    """Return all events of one answer."""
    events: list[StreamEvent] = []
    await into(events, backend, request)
    return events


async def into(events: list[StreamEvent], backend: Backend, request: ChatRequest = REQUEST) -> None:
    """Add the events of one answer to a list, so that they survive an error."""
    async with backend.stream(request, deadline=NEVER) as batches:
        async for batch in batches:
            assert batch, "a batch is never empty"
            events.extend(batch)


def texts(events: Sequence[StreamEvent], index: int = 0) -> list[str]:
    """Return the pieces of text of one choice."""
    return [e.text for e in events if isinstance(e, TextDelta) and e.index == index]


class BackendContract(ABC):
    """The laws of ``backends.base.Backend``, for every kind."""

    running_usage = False
    """Whether it reports counts while it streams."""

    stop_word = "stop"
    """The wire's own word for an answer that ended by itself."""

    @abstractmethod
    def upstream(self, case: Case) -> AbstractAsyncContextManager[Rig]:
        """Return a backend whose upstream behaves as the case says."""

    async def test_an_answer_starts_once_and_finishes_once(self) -> None:
        """One ``ResponseStart`` comes first, one ``Finish`` last, all text between them."""
        case = Case()
        async with self.upstream(case) as rig:
            events = await everything(rig.backend)
        assert isinstance(events[0], ResponseStart)
        assert isinstance(events[-1], Finish)
        assert [type(e) for e in events].count(ResponseStart) == 1
        assert [type(e) for e in events].count(Finish) == 1
        assert "".join(texts(events)) == "".join(case.pieces)
        assert events[-1].choices == (ChoiceEnd(0, "stop", self.stop_word),)
        assert events[-1].dropped_events == 0

    async def test_reported_usage_reaches_the_finish(self) -> None:
        """What the upstream counted stands in the finish, as it counted it."""
        case = Case()
        async with self.upstream(case) as rig:
            finish = (await everything(rig.backend))[-1]
        assert isinstance(finish, Finish)
        assert finish.usage == Usage(7, len(case.pieces))

    async def test_usage_that_was_not_reported_is_none(self) -> None:
        """A count that nobody gave is None: 0 would be a free answer."""
        async with self.upstream(Case(counted=False)) as rig:
            finish = (await everything(rig.backend))[-1]
        assert isinstance(finish, Finish)
        assert finish.usage is None

    async def test_running_usage_only_grows_and_never_runs_ahead(self) -> None:
        """Each running count is true of what came before it; no claim, no running counts."""
        async with self.upstream(Case()) as rig:
            events = await everything(rig.backend)
        seen, counts = 0, []
        for event in events:
            seen += isinstance(event, TextDelta)
            if isinstance(event, UsageUpdate):
                counts.append(event.completion_tokens)
                assert event.completion_tokens <= seen
                assert event.prompt_tokens == 7
        assert counts == sorted(counts)
        assert (max(counts, default=0) == seen) is self.running_usage

    async def test_every_choice_speaks_and_ends(self) -> None:
        """With ``n`` answers asked for, each has its own text and its own end."""
        async with self.upstream(Case()) as rig:
            events = await everything(rig.backend, replace_request(n=2, params={"n": 2}))
        finish = events[-1]
        assert isinstance(finish, Finish)
        assert [end.index for end in finish.choices] == [0, 1]
        assert texts(events, 0) == texts(events, 1) == list(Case().pieces)

    async def test_a_collected_answer_is_its_stream(self) -> None:
        """A whole answer adds up to what was streamed."""
        async with self.upstream(Case()) as rig:
            events = await everything(rig.backend)
        collector = Collector()
        collector.add(events)
        [one] = collector.answer().choices
        assert (one.text, one.reason, one.raw_reason) == (
            "eins zwei drei ",
            "stop",
            self.stop_word,
        )

    @pytest.mark.parametrize("after", [0, 1, 2, 3])
    async def test_a_cut_answer_is_truncated_and_never_finished(self, after: int) -> None:
        """An end without a finish reason is an error, after everything that had arrived."""
        events: list[StreamEvent] = []
        async with self.upstream(Case(fail="cut", after=after)) as rig:
            with pytest.raises(StreamTruncated) as caught:
                await into(events, rig.backend)
        assert texts(events) == list(Case().pieces[:after])
        assert not any(isinstance(event, Finish) for event in events)
        assert caught.value.move_on
        assert caught.value.retry_here

    async def test_a_reset_before_any_answer_is_a_failed_connection(self) -> None:
        """Nothing was accepted, so it may be tried again here or elsewhere."""
        async with self.upstream(Case(fail="reset")) as rig:
            with pytest.raises(ConnectionFailed) as caught:
                await everything(rig.backend)
        assert caught.value.retry_here
        assert caught.value.move_on

    async def test_a_reset_within_an_answer_truncates_it(self) -> None:
        """A break in the answer is no failed connection: content has been seen."""
        events: list[StreamEvent] = []
        async with self.upstream(Case(fail="reset", after=1)) as rig:
            with pytest.raises(StreamTruncated):
                await into(events, rig.backend)
        assert texts(events) == ["eins "]

    async def test_garbage_is_dropped_and_counted(self) -> None:
        """Upstream data that is not JSON costs nothing but a count in the finish."""
        async with self.upstream(Case(fail="garbage", after=1)) as rig:
            events = await everything(rig.backend)
        assert texts(events) == list(Case().pieces)
        assert isinstance(events[-1], Finish)
        assert events[-1].dropped_events == 1

    @pytest.mark.parametrize("status", sorted(STATUSES))
    async def test_a_status_is_the_error_that_it_stands_for(self, status: int) -> None:
        """The whole map of design decision 10, from entering the context."""
        kind, retry_here, move_on = STATUSES[status]
        async with self.upstream(Case(fail="status", status=status, retry_after_s=3)) as rig:
            with pytest.raises(BackendError) as caught:
                async with rig.backend.stream(REQUEST, deadline=NEVER):
                    pytest.fail("a refused request must not be entered")
        error = caught.value
        assert type(error) is kind
        assert (error.upstream_status, error.retry_after_s) == (status, 3)
        assert (error.retry_here, error.move_on) == (retry_here, move_on)
        assert error.message

    async def test_leaving_early_closes_the_upstream_at_once(self) -> None:
        """Whoever leaves the context owes nothing: the upstream sees it, the stream is over."""
        async with self.upstream(Case(fail="stall", after=1)) as rig:
            async with rig.backend.stream(REQUEST, deadline=NEVER) as batches:
                await first_text(batches)
            await rig.left()
            with pytest.raises(StopAsyncIteration):
                await anext(batches)

    @pytest.mark.parametrize("after", [0, 1])
    async def test_a_silent_upstream_is_left_when_cancelled(self, after: int) -> None:
        """Cancelling ends the wait, before the answer and within it, and closes the upstream."""
        reached = asyncio.Event()

        async def ask(backend: Backend) -> None:
            async with backend.stream(REQUEST, deadline=NEVER) as batches:
                await first_text(batches)
                reached.set()
                await anext(batches)

        async with self.upstream(Case(fail="stall", after=after)) as rig:
            task = asyncio.create_task(ask(rig.backend))
            if after:
                await reached.wait()
            else:
                await let_run(task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await rig.left()

    async def test_an_error_of_the_reader_comes_out_unchanged(self) -> None:
        """What happens in the body of the context is not the backend's to rename."""

        async def fail(backend: Backend) -> None:
            async with backend.stream(REQUEST, deadline=NEVER) as batches:
                await first_text(batches)
                raise LookupError("of the reader")

        async with self.upstream(Case(fail="stall", after=1)) as rig:
            with pytest.raises(LookupError, match="of the reader"):
                await fail(rig.backend)
            await rig.left()

    async def test_answers_side_by_side_do_not_mix(self) -> None:
        """One backend carries many streams at a time."""
        async with self.upstream(Case()) as rig:
            several = await asyncio.gather(*(everything(rig.backend) for _ in range(8)))
        assert all(texts(events) == list(Case().pieces) for events in several)

    async def test_it_is_used_again_after_a_failure(self) -> None:
        """A failed answer leaves nothing behind that spoils the next one."""
        async with self.upstream(Case(fail="cut", after=1)) as rig:
            for _ in range(3):
                with pytest.raises(StreamTruncated):
                    await everything(rig.backend)


class OpenAIWireContract(BackendContract):
    """What adapters of the OpenAI chat wire over HTTP owe beside the laws."""

    path = "/v1/chat/completions"
    output_field = ""
    """The one name of the output limit that the upstream takes; empty: the caller's."""

    @abstractmethod
    def build(self, upstream: Upstream) -> Backend:
        """Return a backend that asks this server."""

    def serve(self, *scripts: Script) -> AbstractAsyncContextManager[Upstream]:
        """Start a server where the backend can reach it."""
        return serving(*scripts)

    @asynccontextmanager
    async def asking(self, *scripts: Script) -> AsyncIterator[tuple[Backend, Upstream]]:
        """Give a backend before a scripted server."""
        async with self.serve(*scripts) as upstream:
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

    async def wire(self, *events: bytes) -> list[StreamEvent]:
        """Return what becomes of an answer made of these wire events."""
        async with self.asking(streams(*events)) as (backend, _):
            return await everything(backend)

    async def failure(self, *scripts: Script) -> tuple[BackendError, list[StreamEvent]]:
        """Return the error that an answer ends with, and the events before it."""
        events: list[StreamEvent] = []
        async with self.asking(*scripts) as (backend, _):
            with pytest.raises(BackendError) as caught:
                await into(events, backend)
        return caught.value, events

    async def test_the_request_is_of_the_wire(self) -> None:
        """Model, messages and the output bound arrive; usage is always asked for."""
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            await everything(backend)
        [request] = upstream.requests
        body = request.json()
        assert (request.method, request.path) == ("POST", self.path)
        assert body["model"] == "up-model"
        assert body["messages"] == [{"role": "user", "content": "Grüß Gott"}]
        assert body[self.output_field or "max_tokens"] == 64
        assert body["stream"] is True
        assert body["stream_options"]["include_usage"] is True
        assert request.headers["x-request-id"] == "req-1"

    async def test_no_output_limit_is_made_up(self) -> None:
        """Without a bound for this attempt none is sent: the endpoint caps itself."""
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            await everything(backend, replace_request(output_bound=None))
        assert not {"max_tokens", "max_completion_tokens"} & set(upstream.requests[0].json())

    async def test_every_claimed_field_reaches_the_upstream(self) -> None:
        """A capability is claimed only for what is really sent."""
        given = {**SAMPLES, "n": 2}
        async with self.asking(streams(*answer("ok", n=2))) as (backend, upstream):
            claimed = backend.capabilities.fields
            params = given if claimed is None else {k: given[k] for k in claimed & set(given)}
            await everything(backend, replace_request(params=params))
        body = upstream.requests[0].json()
        assert {name: body.get(name) for name in params} == params

    async def test_the_output_limit_keeps_the_name_that_the_caller_used(self) -> None:
        """`max_completion_tokens` stays what it is: some upstreams refuse the older name."""
        request = replace_request(output_field="max_completion_tokens", output_bound=9)
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            await everything(backend, request)
        body = upstream.requests[0].json()
        names = [name for name in ("max_completion_tokens", "max_tokens") if name in body]
        assert names == [self.output_field or "max_completion_tokens"]
        assert body[names[0]] == 9

    async def test_an_answer_without_an_end_marker_stands_if_it_ended_cleanly(self) -> None:
        """A finish reason for every choice and a clean end are enough."""
        *events, _ = answer("ok")
        assert isinstance((await self.wire(*events))[-1], Finish)

    async def test_an_end_marker_without_a_finish_reason_is_no_finish(self) -> None:
        """`[DONE]` alone says nothing about the answer."""
        error, events = await self.failure(streams(data(delta("half")), DONE))
        assert isinstance(error, StreamTruncated)
        assert texts(events) == ["half"]

    async def test_a_choice_that_never_ended_truncates_the_answer(self) -> None:
        """With two choices, one finish reason is not enough."""
        said = (data(delta("a", 0)), data(delta("b", 1)), data(chunk(choice(0, "stop"))), DONE)
        error, _ = await self.failure(streams(*said))
        assert isinstance(error, StreamTruncated)
        assert "choice 1" in error.message

    async def test_an_answer_may_arrive_byte_by_byte(self) -> None:
        """Where the network cuts the bytes changes nothing."""
        events = answer("Grüße ", "🌍")
        whole = await self.wire(*events)
        split = await self.wire(*(bytes([byte]) for byte in b"".join(events)))
        assert split == whole
        assert "".join(texts(whole)) == "Grüße 🌍"

    async def test_tool_calls_arrive_in_pieces_and_in_parallel(self) -> None:
        """Each piece names its call; id and name come with the first."""

        def call(index: int, **more: Any) -> bytes:
            return data(chunk(choice(tool_calls=[{"index": index, **more}])))

        events = await self.wire(
            call(0, id="c0", type="function", function={"name": "time", "arguments": ""}),
            call(1, id="c1", type="function", function={"name": "sum", "arguments": '{"a'}),
            call(0, function={"arguments": "{}"}),
            call(1, function={"arguments": '":1}'}),
            data(chunk(choice(0, "tool_calls"))),
            DONE,
        )
        assert [e for e in events if isinstance(e, ToolCallDelta)] == [
            ToolCallDelta(0, 0, "c0", "time", ""),
            ToolCallDelta(0, 1, "c1", "sum", '{"a'),
            ToolCallDelta(0, 0, None, None, "{}"),
            ToolCallDelta(0, 1, None, None, '":1}'),
        ]
        assert isinstance(events[-1], Finish)
        assert events[-1].choices == (ChoiceEnd(0, "tool_calls", "tool_calls"),)

    @pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
    async def test_reasoning_is_told_from_text(self, name: str) -> None:
        """Under either of its usual names."""
        thought = data(chunk(choice(**{name: "hm", "content": None})))
        events = await self.wire(thought, *answer("42"))
        assert [e for e in events if isinstance(e, ReasoningDelta)] == [ReasoningDelta(0, "hm")]
        assert texts(events) == ["42"]

    async def test_a_refusal_is_told_from_text(self) -> None:
        """A refusal in the model's words is content of its own kind."""
        events = await self.wire(data(chunk(choice(refusal="No."))), *answer())
        assert [e for e in events if isinstance(e, RefusalDelta)] == [RefusalDelta(0, "No.")]

    async def test_parts_of_usage_are_known_only_where_reported(self) -> None:
        """Cached and reasoning tokens are None, never 0, unless the upstream named them."""
        detailed = usage(
            9, 5, prompt_tokens_details={"cached_tokens": 4}, completion_tokens_details=None
        )
        events = await self.wire(
            *answer("ok", counted=False)[:-1], data(chunk(usage=detailed)), DONE
        )
        assert isinstance(events[-1], Finish)
        assert events[-1].usage == Usage(9, 5, cached_tokens=4)

    async def test_an_error_in_the_stream_comes_after_what_was_said(self) -> None:
        """Content before it is delivered first, also when both arrive in one read."""
        report = data({"error": {"message": "overloaded", "code": 529}})

        async def script(exchange: Exchange) -> None:
            await exchange.head()
            await exchange.send(data(delta("half")) + report)
            await exchange.hang()

        error, events = await self.failure(script)
        assert texts(events) == ["half"]
        assert isinstance(error, UpstreamFailed)
        assert (error.upstream_status, error.message) == (529, "overloaded")

    async def test_a_stream_that_is_only_an_error_is_that_error(self) -> None:
        """A 200 does not make it an answer."""
        report = data({"error": {"message": "too long", "code": "context_length_exceeded"}})
        error, events = await self.failure(streams(report))
        assert isinstance(error, ContextLengthExceeded)
        assert events == []

    async def test_a_stream_of_another_wire_is_a_protocol_error(self) -> None:
        """JSON that is not of the wire is not dropped: the endpoint is not what it claims."""
        error, _ = await self.failure(streams(data({"choices": "none"})))
        assert isinstance(error, ProtocolError)
        assert not error.retry_here

    async def test_a_connection_is_used_again(self) -> None:
        """One answer after another needs no new connection, nor a new handshake."""
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            for _ in range(5):
                await everything(backend)
        assert upstream.connections == 1

    async def test_an_upstream_that_does_not_hang_up_does_not_hold_the_answer(self) -> None:
        """After the end marker nothing more is owed; the connection is given up."""

        async def script(exchange: Exchange) -> None:
            await exchange.head()
            await exchange.send(*answer("ok"))
            await exchange.hang()

        async with self.asking(script) as (backend, upstream):
            assert isinstance((await everything(backend))[-1], Finish)
            await (await upstream.exchange()).gone.wait()

    async def test_a_web_page_is_no_answer(self) -> None:
        """A 200 with a page of a captive portal has no finish reason."""
        error, _ = await self.failure(replies(200, b"<html>Welcome</html>"))
        assert isinstance(error, StreamTruncated)

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("context_length_exceeded", ContextLengthExceeded),
            ("string_above_max_length", ContextLengthExceeded),
            ("content_policy_violation", ContentFiltered),
            ("content_filter", ContentFiltered),
            ("moderation_blocked", ContentFiltered),
            ("invalid_value", RequestRejected),
        ],
    )
    async def test_an_error_code_says_more_than_the_status(
        self, code: str, kind: type[BackendError]
    ) -> None:
        """Context length moves on to a larger window, a content filter ends the request."""
        error, _ = await self.failure(replies(400, {"error": {"message": "no", "code": code}}))
        assert type(error) is kind
        assert (error.upstream_code, error.message) == (code, "no")
        assert error.move_on is (kind is ContextLengthExceeded)

    async def test_a_context_error_may_be_told_by_its_words(self) -> None:
        """Servers without codes say it in a sentence."""
        words = "This model's maximum context length is 8192 tokens."
        error, _ = await self.failure(replies(400, {"error": {"message": words, "code": 400}}))
        assert isinstance(error, ContextLengthExceeded)

    async def test_retry_after_may_be_a_date(self) -> None:
        """RFC 9110 allows seconds and a date."""
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
        error, _ = await self.failure(replies(429, {}, {"Retry-After": until}))
        assert error.retry_after_s is not None
        assert 60 < error.retry_after_s <= 90

    async def test_a_redirect_is_refused_and_not_followed(self) -> None:
        """Our key goes to the configured address only."""
        redirect = replies(307, b"", {"Location": "/v1/elsewhere"})
        async with self.asking(redirect, streams(*answer("ok"))) as (backend, upstream):
            with pytest.raises(EndpointRejected):
                await everything(backend)
        assert [request.path for request in upstream.requests] == [self.path]

    async def test_a_cookie_of_one_answer_is_not_sent_with_the_next(self) -> None:
        """Requests of different callers share nothing but the connection."""

        async def script(exchange: Exchange) -> None:
            await exchange.head(headers={"Set-Cookie": "who=first; Path=/"})
            await exchange.send(*answer("ok"))
            await exchange.end()

        async with self.asking(script) as (backend, upstream):
            await everything(backend)
            await everything(backend)
        assert ["cookie" in request.headers for request in upstream.requests] == [False, False]

    @pytest.mark.parametrize(
        "body",
        [b"", b"\xff\xfe", b"[" * 60_000, b'{"error": []}', b"[]", b"5", b"x" * 200_000],
        ids=["empty", "not utf-8", "deep", "empty list", "list", "number", "large"],
    )
    async def test_a_hostile_error_body_changes_neither_status_nor_kind(self, body: bytes) -> None:
        """An unreadable body leaves a bounded message and the status."""
        error, _ = await self.failure(replies(503, body))
        assert type(error) is UpstreamFailed
        assert error.upstream_status == 503
        assert 0 < len(error.message) <= 2000

    async def test_a_refusal_whose_body_breaks_off_keeps_its_status(self) -> None:
        """401 is 401: a cut error body is no reason to try the same key again."""

        async def script(exchange: Exchange) -> None:
            await exchange.head(401, {"Content-Length": "100"}, chunked=False)
            await exchange.raw(b'{"error":')
            exchange.cut()

        error, _ = await self.failure(script)
        assert isinstance(error, EndpointRejected)
        assert error.upstream_status == 401

    async def test_a_promised_body_that_stops_short_is_truncated(self) -> None:
        """Also where the finish reason had arrived: the end was not clean."""

        async def script(exchange: Exchange) -> None:
            await exchange.head()
            await exchange.send(*answer("ok")[:-1])
            exchange.cut()

        error, events = await self.failure(script)
        assert isinstance(error, StreamTruncated)
        assert texts(events) == ["ok"]

    async def test_an_answer_over_the_bound_is_given_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No upstream may fill our memory or our time without end."""
        monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1000)

        async def script(exchange: Exchange) -> None:
            await exchange.head()
            while True:
                await exchange.send(data(delta("x" * 100)))

        error, _ = await self.failure(script)
        assert isinstance(error, ProtocolError)
        assert "1000 bytes" in error.message

    async def test_entering_means_that_the_upstream_accepted(self) -> None:
        """The context is entered on the headers, before any content."""
        go_on = asyncio.Event()

        async def script(exchange: Exchange) -> None:
            await exchange.head()
            await go_on.wait()
            await exchange.send(*answer("ok"))
            await exchange.end()

        async with (
            self.asking(script) as (backend, _),
            backend.stream(REQUEST, deadline=NEVER) as batches,
        ):
            go_on.set()
            assert await first_text(batches) == "ok"


SAMPLES: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.1,
    "seed": 7,
    "stop": ["END"],
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "logit_bias": {"50256": -100},
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "time"}}],
    "tool_choice": "required",
}
"""A value for fields that an upstream of the wire may be sent."""


async def first_text(batches: EventBatches) -> str:
    """Read up to the first piece of text and return it."""
    async for batch in batches:
        for event in batch:
            if isinstance(event, TextDelta):
                return event.text
    raise AssertionError("the stream ended without text")


async def let_run(task: asyncio.Task[None]) -> None:
    """Let a task come to where it waits for the network."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()


def replace_request(**changes: Any) -> ChatRequest:
    """Return the usual request with changes."""
    return msgspec.structs.replace(REQUEST, **changes)


async def _play(case: Case, exchange: Exchange) -> None:
    if case.fail == "status":
        wait = {} if case.retry_after_s is None else {"Retry-After": f"{case.retry_after_s:g}"}
        await replies(case.status, {"error": {"message": "as scripted"}}, wait)(exchange)
        return
    if case.after == 0 and case.fail == "reset":
        exchange.reset()
        return
    if case.after == 0 and case.fail == "stall":
        await exchange.hang()
        return
    n = exchange.request.json().get("n", 1)
    await exchange.head()
    for number, text in enumerate((*case.pieces, None)):
        if case.fail is not None and case.after == number and await _fail(case, exchange):
            return
        if text is not None:
            await exchange.send(*(data(delta(text, index)) for index in range(n)))
    await exchange.send(*answer(n=n, counted=False)[:-1])
    if case.counted:
        await exchange.send(data(chunk(usage=usage(7, len(case.pieces) * n))))
    await exchange.send(DONE)
    await exchange.end()


async def _fail(case: Case, exchange: Exchange) -> bool:
    """Fail in the middle; false if the answer goes on."""
    match case.fail:
        case "garbage":
            await exchange.send(b"data: [garbage, not JSON\n\n")
            return False
        case "stall":
            await exchange.hang()
        case "cut":
            await exchange.end()
        case _:
            exchange.reset()
    return True
