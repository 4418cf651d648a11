"""Responses answers of upstreams are read, whatever their servers leave out or say twice."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from backends.collect import Choice, Collector
from backends.errors import (
    BackendError,
    ContentFiltered,
    ProtocolError,
    RateLimited,
    RequestRejected,
    StreamTruncated,
    UpstreamFailed,
)
from backends.types import (
    CONTENT,
    DELTAS,
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Finish,
    HalfUsage,
    ReasoningDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    Usage,
)
from backends.wire.responses_reply import ResponsesEncoder
from backends.wire.responses_stream import ResponsesDecoder
from tests.wire.test_sse import split

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
TOKEN = {"token": "Hé", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
CITED = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 29,
}
TEXT = {
    "type": "output_text",
    "text": "Hé there",
    "annotations": [{"type": "url_citation", **CITED}],
    "logprobs": [TOKEN],
}
THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Think."}],
    "content": [{"type": "reasoning_text", "text": "Deep."}],
    "encrypted_content": "c2VjcmV0",
}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "content": [TEXT]}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "f",
    "arguments": '{"x":1}',
}
BARE = {**CALL, "id": "fc_2", "call_id": "call_2", "name": "g", "arguments": ""}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
OUTPUT = [THOUGHT, SEARCH, MESSAGE, CALL, BARE]
STARTED = {"id": "resp_1", "object": "response", "model": "up", "status": "in_progress"}
DONE = {**STARTED, "status": "completed", "output": OUTPUT, "usage": USAGE}


def event(kind: str, place: int | None = None, **fields: Any) -> dict[str, Any]:
    """One event of a stream."""
    where = {} if place is None else {"output_index": place}
    return {"type": f"response.{kind}", **where, **fields}


def item(place: int, told: dict[str, Any], *between: dict[str, Any]) -> list[dict[str, Any]]:
    """An item's events."""
    early = {**told, "arguments": "", "content": [], "summary": [], "encrypted_content": "early"}
    early = {name: value for name, value in early.items() if name in told}
    added = event("output_item.added", place, item=early)
    return [added, *between, event("output_item.done", place, item=told)]


FULL = [
    event("created", response=STARTED),
    *item(
        0,
        THOUGHT,
        event("reasoning_summary_text.delta", 0, summary_index=0, delta="Thi"),
        event("reasoning_summary_text.delta", 0, summary_index=0, delta="nk."),
        event("reasoning_text.delta", 0, content_index=0, delta="Deep."),
    ),
    *item(1, SEARCH, event("web_search_call.searching", 1, item_id="ws_1")),
    *item(
        2,
        MESSAGE,
        event("output_text.delta", 2, content_index=0, delta="Hé", logprobs=[TOKEN]),
        event("output_text.delta", 2, content_index=0, delta=" there", obfuscation="x"),
        event(
            "output_text.annotation.added", 2, content_index=0, annotation=TEXT["annotations"][0]
        ),
        event("output_text.done", 2, content_index=0, text=TEXT["text"], logprobs=[TOKEN]),
    ),
    *item(
        3,
        CALL,
        event("function_call_arguments.delta", 3, delta='{"x"'),
        event("function_call_arguments.delta", 3, delta=":1}"),
        event("function_call_arguments.done", 3, arguments='{"x":1}'),
    ),
    *item(4, BARE),
    event("completed", response=DONE),
]
TOLD_LATE = [e for e in FULL if not e["type"].endswith((".delta", "annotation.added", ".added"))]
AT_THE_END = [FULL[0], FULL[-1]]
NO_END_OF_ITEMS = [e for e in FULL if "done" not in e["type"]]
ROTATING = [
    {
        **e,
        "item_id": f"capture-{n}",
        **({"item": {**e["item"], "id": f"i-{n}"}} if n > 1 and "item" in e else {}),
    }
    for n, e in enumerate(FULL)
]


def body(events: list[dict[str, Any]]) -> bytes:
    """A stream's bytes."""
    return b"".join(
        f"event: {e['type']}\ndata: {json.dumps(e, ensure_ascii=False)}\n\n".encode()
        for e in events
    )


def read(*reads: bytes) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode an answer that arrives in these reads."""
    decoder = ResponsesDecoder(new_id=lambda: "new")
    events: list[StreamEvent] = []
    for data in reads:
        events += decoder.feed(data)
        if decoder.done or decoder.failure:
            return events, decoder.failure
    return [*events, *decoder.end()], decoder.failure


def choice_of(events: list[StreamEvent]) -> Choice:
    """The one choice of an answer."""
    collector = Collector()
    collector.add(events)
    (choice,) = collector.answer().choices
    return choice


@pytest.mark.parametrize(
    "stream",
    [
        body(FULL),
        body(TOLD_LATE),
        body(AT_THE_END),
        body(NO_END_OF_ITEMS),
        json.dumps(DONE).encode(),
    ],
    ids=["full", "told late", "only at the end", "no ends of items", "whole"],
)
def test_an_answer_is_the_same_however_late_it_is_told(stream: bytes) -> None:
    """Nothing is lost that only a later telling holds, and nothing is said twice."""
    events, failure = read(stream)
    assert failure is None
    assert events[0] == ResponseStart("resp_1", "up")
    choice = choice_of(events)
    assert (choice.text, choice.reasoning) == ("Hé there", "Think.Deep.")
    assert [(c.id, c.name, c.arguments) for c in choice.calls] == [
        ("call_1", "f", '{"x":1}'),
        ("call_2", "g", "{}"),
    ]
    common = {"format": "openai-responses-v1", "id": "rs_1"}
    assert choice.details == [
        {"type": "reasoning.summary", "summary": "Think.", "index": 0, **common},
        {"type": "reasoning.text", "text": "Deep.", "index": 1, **common},
        {"type": "reasoning.encrypted", "data": "c2VjcmV0", "index": 2, **common},
    ]
    assert choice.annotations == [{"type": "url_citation", "url_citation": CITED}]
    assert choice.logprobs == [TOKEN]
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.choices == (ChoiceEnd(0, "tool_calls", "completed"),)
    assert finish.usage == Usage(20, 9, 4, None, 3)
    assert finish.extras == {"output_items": [SEARCH]}


@given(st.lists(st.integers(0, 10**6), max_size=8))
def test_where_the_reads_fall_changes_nothing(cuts: list[int]) -> None:
    """Inside a character, too."""
    assert read(*split(body(FULL), cuts)) == read(body(FULL))


@given(st.integers(0, len(body(FULL[:-1]))))
def test_a_stream_that_breaks_off_never_looks_complete(end: int) -> None:
    """What came before is kept."""
    events, failure = read(body(FULL)[:end])
    assert isinstance(failure, StreamTruncated)
    said = [e for e in events if isinstance(e, TextDelta | ReasoningDelta)]
    whole, _ = read(body(FULL))
    assert said == [e for e in whole if isinstance(e, TextDelta | ReasoningDelta)][: len(said)]


def test_ids_that_change_from_event_to_event_are_one_item() -> None:
    """The place counts, and the first id is the name."""
    choice = choice_of(read(body(ROTATING))[0])
    assert choice.text == "Hé there"
    assert len(choice.calls) == 2
    assert {detail["id"] for detail in choice.details} == {"rs_1"}


def test_a_server_that_leaves_items_out_at_the_end_says_nothing_twice() -> None:
    """Items at the end are found by their order within a type."""
    output = [entry for entry in OUTPUT if entry is not SEARCH]
    last = event("completed", response={**DONE, "output": output})
    assert choice_of(read(body([*FULL[:-1], last]))[0]).text == "Hé there"


def test_a_server_without_items_or_places_is_read() -> None:
    """Only deltas and an end."""
    text = event("output_text.delta", delta="Hi", item_id="a")
    done = event("completed", response={"status": "completed", "usage": USAGE})
    events, failure = read(body([text, text, done]))
    assert failure is None
    assert choice_of(events).text == "HiHi"
    assert isinstance(events[0], ResponseStart)


def test_refusals_and_images_are_content() -> None:
    """An image is whole in its item; what else the item says is an extra."""
    image = {"type": "image_generation_call", "id": "ig", "result": "AA", "output_format": "webp"}
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    events, failure = read(json.dumps({**DONE, "output": [image, refusal]}).encode())
    assert failure is None
    choice = choice_of(events)
    assert (choice.images, choice.refusal) == (["data:image/webp;base64,AA"], "No.")
    assert isinstance(events[-1], Finish)
    assert events[-1].extras == {
        "output_items": [{"type": "image_generation_call", "id": "ig", "output_format": "webp"}]
    }


@pytest.mark.parametrize(
    ("details", "end"),
    [
        ({"reason": "max_output_tokens"}, ChoiceEnd(0, "length", "max_output_tokens")),
        ({"reason": "content_filter"}, ChoiceEnd(0, "content_filter", "content_filter")),
        (None, ChoiceEnd(0, "length", "incomplete")),
    ],
)
def test_an_incomplete_answer_says_why(details: Any, end: ChoiceEnd) -> None:
    """Streamed and whole."""
    response = {**DONE, "status": "incomplete", "incomplete_details": details, "output": [MESSAGE]}
    for stream in (body([event("incomplete", response=response)]), json.dumps(response).encode()):
        events, failure = read(stream)
        assert failure is None
        assert isinstance(events[-1], Finish)
        assert events[-1].choices == (end,)


REQUEST = ChatRequest(models=("m",), messages=(), params={}, required=frozenset(), prompt_bytes=0)
ERROR = {"code": "rate_limit_exceeded", "message": "slow down"}
FAILED = {**STARTED, "status": "failed", "error": ERROR, "output": []}


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        (body([event("failed", response=FAILED)]), RateLimited),
        (body([{"type": "error", **ERROR}]), RateLimited),
        (body([{"type": "error", "error": ERROR}, event("failed", response=FAILED)]), RateLimited),
        (body([{"error": {**ERROR, "code": 429}, "type": "x"}]), RateLimited),
        (json.dumps(FAILED).encode(), RateLimited),
        (body([event("failed", response={**FAILED, "error": None})]), UpstreamFailed),
        (body([event("cancelled", response={"status": "cancelled"})]), UpstreamFailed),
        (
            body(
                [event("failed", response={**FAILED, "error": {**ERROR, "code": "content_filter"}})]
            ),
            ContentFiltered,
        ),
        (json.dumps({**STARTED, "output": []}).encode(), StreamTruncated),
        (b'{"object": "chat.completion", "choices": []}', ProtocolError),
        (b'{"error": {"message": "no", "type": "invalid_request_error"}}', RequestRejected),
    ],
)
def test_a_failure_is_the_right_error(stream: bytes, kind: type[BackendError]) -> None:
    """However the server says it, with the server's words."""
    _, failure = read(stream)
    assert type(failure) is kind


def test_what_came_before_a_failure_is_kept() -> None:
    """Also what only the failed response tells."""
    told = [*FULL[:-1], event("failed", response={**FAILED, "output": OUTPUT})]
    events, failure = read(body(told))
    assert isinstance(failure, RateLimited)
    assert choice_of(events).text == "Hé there"
    late, _ = read(body([FULL[0], event("failed", response={**FAILED, "output": OUTPUT})]))
    assert choice_of(late).text == "Hé there"


def test_usage_with_one_count_is_half_a_report_and_reasoning_apart_is_added() -> None:
    """Unknown is None, never 0; the total shows what was counted apart."""
    apart = {**USAGE, "total_tokens": 32}
    for usage, wanted in (
        (None, None),
        ({"input_tokens": 3}, HalfUsage(3, None)),
        (apart, Usage(20, 12, 4, None, 3)),
    ):
        events, _ = read(json.dumps({**DONE, "usage": usage}).encode())
        assert isinstance(events[-1], Finish)
        assert events[-1].usage == wanted


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted({*CALL, *TEXT, *THOUGHT, "status"})), inner)
    ),
    max_leaves=8,
)
_KINDS = st.sampled_from(["message", "reasoning", "function_call", "image_generation_call", 1])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from([e["type"] for e in FULL] + ["error", "response.failed"])},
            optional={
                "output_index": st.integers(0, 2),
                "delta": _JSON,
                "text": _JSON,
                "arguments": _JSON,
                "annotation": _JSON,
                "logprobs": _JSON,
                "error": _JSON,
                "item": st.builds(
                    lambda kind, rest: {**rest, "type": kind},
                    _KINDS,
                    st.dictionaries(st.sampled_from(sorted({*CALL, *THOUGHT})), _JSON),
                ),
                "response": st.dictionaries(
                    st.sampled_from(["id", "model", "status", "output", "usage", "error"]), _JSON
                ),
            },
        ),
        max_size=6,
    )
)
def test_whatever_comes_there_is_one_end(told: list[dict[str, Any]]) -> None:
    """No crash; a finish or a failure, and what can be written for a client."""
    events, failure = read(body(told))
    assert (failure is None) == any(isinstance(event, Finish) for event in events)
    encoder = ResponsesEncoder(AnswerHead("gen-1", "m", "p", 1), REQUEST)
    for event in events:
        if isinstance(event, DELTAS):
            encoder.delta(event)


@functools.cache
def recordings() -> tuple[Any, ...]:
    """Every recorded answer of the wire: name, kind, bytes, and its last response as it was."""
    found = []
    for folder in sorted(ROOT.glob("*-responses/*")):
        meta = json.loads((folder / "meta.json").read_text())
        if meta["kind"] == "error":
            continue
        data = (folder / "response.body").read_bytes()
        if meta["framing"] == "payload-lines":
            data = b"".join(b"data: " + line + b"\n\n" for line in data.splitlines() if line)
        if meta["framing"] == "json":
            ends = [json.loads(data)]
        else:
            lines = (line[5:] for line in data.splitlines() if line.startswith(b"data:"))
            told = (json.loads(line) for line in lines if b"[DONE]" not in line)
            ends = [e["response"] for e in told if e["type"] == "response.completed"]
        found.append(pytest.param(data, ends[0] if ends else None, id=folder.name))
    if found:
        return tuple(found)
    reason = "the recordings are not beside this checkout (../shared/recordings)"
    return (pytest.param(b"", None, marks=pytest.mark.skip(reason)),)


@pytest.mark.parametrize(("data", "response"), recordings())
def test_a_recorded_answer_is_what_openais_own_reader_finds(
    data: bytes, response: dict[str, Any] | None
) -> None:
    """Text, calls, reasoning, usage and end, from any reads; an error ends it as one."""
    events, failure = read(data)
    rng = random.Random(len(data))
    for pieces in (1, 3, 40, min(len(data), 2000)):
        cuts = [rng.randrange(len(data)) for _ in range(pieces)]
        again, other = read(*split(data, cuts))
        assert again == events
        assert type(other) is type(failure)
    if response is None:
        assert isinstance(failure, RateLimited)
        return
    assert failure is None
    theirs: Any = Response.construct(**response)
    choice = choice_of(events)
    assert choice.text == theirs.output_text
    calls = [i for i in response["output"] if i["type"] in ("function_call", "custom_tool_call")]
    assert [(c.id, c.name, c.custom or json.loads(c.arguments)) for c in choice.calls] == [
        (c["call_id"], c["name"], "input" in c or json.loads(c["arguments"])) for c in calls
    ]
    assert [c.arguments for c in choice.calls if c.custom] == [
        call["input"] for call in calls if "input" in call
    ]
    thoughts = [i for i in response["output"] if i["type"] == "reasoning"]
    parts = [p for i in thoughts for p in [*(i.get("summary") or ()), *(i.get("content") or ())]]
    assert choice.reasoning == "".join(part["text"] for part in parts)
    kept = [d for d in choice.details if d["type"] == "reasoning.encrypted"]
    secret = [i for i in thoughts if i.get("encrypted_content")]
    assert [d["id"] for d in kept] == [i["id"] for i in secret]
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.dropped_events == 0
    assert finish.choices[0].reason == ("tool_calls" if calls else "stop")
    assert finish.usage is not None
    assert finish.usage.prompt_tokens == response["usage"]["input_tokens"]
    assert finish.usage.completion_tokens == response["usage"]["output_tokens"]
    spoken = [event for event in events if isinstance(event, CONTENT)]
    assert all(event.index == 0 for event in spoken)


def test_reasoning_under_its_first_name_is_reasoning() -> None:
    """``response.reasoning.delta``, whose pieces may be objects; the whole is not repeated."""
    thought = {"type": "reasoning", "id": "rs_0"}
    told = [
        event("created", response=STARTED),
        event("output_item.added", 0, item=thought),
        event("reasoning.delta", 0, content_index=0, delta="Dee"),
        event("reasoning.delta", 0, content_index=0, delta={"text": "p."}),
        event("reasoning.done", 0, content_index=0, text="Deep."),
        event("completed", response={"status": "completed", "output": []}),
    ]
    events, failure = read(body(told))
    assert failure is None
    assert [e.text for e in events if isinstance(e, ReasoningDelta)] == ["Dee", "p."]
