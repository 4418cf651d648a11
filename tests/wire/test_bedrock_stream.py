"""Answers of Bedrock's Converse become lawful events, streamed or whole."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.eventstream import EventStream
from botocore.parsers import EventStreamJSONParser, create_parser
from hypothesis import given
from hypothesis import strategies as st

from backends.collect import ChatAnswer, Collector
from backends.errors import BackendError, ProtocolError, RateLimited, StreamTruncated
from backends.types import (
    ChoiceEnd,
    Finish,
    ReasoningDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire.bedrock_stream import ConverseDecoder
from tests.aws import converse, event, exception, metadata, stop, text
from tests.wire.test_sse import split

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "recordings" / "bedrock-converse"


def play(*reads: bytes) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode a body that arrives in these reads."""
    ids = iter(range(1000))
    decoder = ConverseDecoder(lambda: f"call-{next(ids)}")
    events: list[StreamEvent] = []
    for read in reads:
        events += decoder.feed(read)
        if decoder.done or decoder.failure:
            return events, decoder.failure
    events += decoder.end()
    return events, decoder.failure


def collected(events: list[StreamEvent]) -> ChatAnswer:
    """Return what the events add up to."""
    collector = Collector()
    collector.add(events)
    return collector.answer()


def complete(*frames: bytes) -> tuple[list[StreamEvent], Finish]:
    """Return the events of an answer that is complete, and its finish."""
    events, failure = play(b"".join(frames))
    assert failure is None
    finish = events[-1]
    assert isinstance(finish, Finish)
    return events, finish


def begun(index: int, **start: Any) -> bytes:
    """Return the beginning of a block."""
    return event("contentBlockStart", {"contentBlockIndex": index, "start": start})


def delta(index: int, **delta: Any) -> bytes:
    """Return a piece of a block."""
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta, "p": "x"})


def ended(index: int) -> bytes:
    """Return the end of a block."""
    return event("contentBlockStop", {"contentBlockIndex": index})


TOOLS = [
    event("messageStart", {"role": "assistant"}),
    delta(0, text="Grüße, "),
    delta(0, text="🌍"),
    ended(0),
    begun(1, toolUse={"toolUseId": "t1", "name": "weather"}),
    delta(1, toolUse={"input": ""}),
    delta(1, toolUse={"input": '{"city":'}),
    delta(1, toolUse={"input": '"Köln"}'}),
    ended(1),
    begun(2, toolUse={"toolUseId": "t2", "name": "time"}),
    ended(2),
    stop("tool_use"),
    metadata(5, 9),
]
"""Text without a beginning of its block, a call in pieces, and one without arguments."""


def test_text_and_parallel_calls_are_told_apart() -> None:
    """Calls are counted for themselves, whatever the indexes of their blocks."""
    events, finish = complete(*TOOLS)
    assert events == [
        ResponseStart(),
        TextDelta(0, "Grüße, "),
        TextDelta(0, "🌍"),
        ToolCallDelta(0, 0, "t1", "weather", ""),
        ToolCallDelta(0, 0, None, None, '{"city":'),
        ToolCallDelta(0, 0, None, None, '"Köln"}'),
        ToolCallDelta(0, 1, "t2", "time", ""),
        ToolCallDelta(0, 1, None, None, "{}"),
        finish,
    ]
    assert finish.choices == (ChoiceEnd(0, "tool_calls", "tool_use"),)
    assert finish.usage == Usage(5, 9)


@given(st.lists(st.integers(0, 5000), max_size=20))
def test_where_the_reads_are_cut_changes_nothing(cuts: list[int]) -> None:
    """The same events from any reads."""
    body = b"".join(TOOLS)
    assert play(*split(body, cuts)) == play(body)


@given(st.integers(0, len(b"".join(TOOLS)) - 1))
def test_a_body_that_breaks_off_is_never_complete(length: int) -> None:
    """Without its stop reason or its counts, or within a frame; what was said stays said."""
    body = b"".join(TOOLS)
    events, failure = play(body[:length])
    assert isinstance(failure, StreamTruncated)
    assert events == play(body)[0][: len(events)]


def test_counts_come_after_the_stop_and_include_what_caches_held() -> None:
    """``inputTokens`` are only those that no cache held; a kind without a report is None."""
    more = {"cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    _, finish = complete(*converse("a")[:-1], metadata(3, 2, **more))
    assert finish.usage == Usage(123, 2, cached_tokens=100, cache_write_tokens=20)
    _, finish = complete(*converse("a")[:-1], metadata(3, 2, cacheReadInputTokens=0))
    assert finish.usage == Usage(3, 2, cached_tokens=0)
    _, finish = complete(*converse("a", counted=False))
    assert finish.usage is None


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
    ],
)
def test_the_word_for_the_end_is_normalized_and_kept(word: str, reason: str) -> None:
    """All that the service model lists."""
    _, finish = complete(*converse("a", reason=word))
    assert [(end.reason, end.raw_reason) for end in finish.choices] == [(reason, word)]


@pytest.mark.parametrize("word", ["malformed_model_output", "malformed_tool_use"])
def test_a_broken_answer_is_no_finish(word: str) -> None:
    """The model failed, after what it said."""
    events, failure = play(b"".join(converse("a", reason=word)))
    assert failure is not None
    assert TextDelta(0, "a") in events


def test_reasoning_keeps_its_signature() -> None:
    """It comes in its own delta, after the text, and belongs to the same entry."""
    events, _ = complete(
        delta(0, reasoningContent={"text": "hm, "}),
        delta(0, reasoningContent={"text": "so"}),
        delta(0, reasoningContent={"signature": "sig=="}),
        ended(0),
        *converse("42"),
    )
    [choice] = collected(events).choices
    assert (choice.reasoning, choice.text) == ("hm, so", "42")
    head = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    assert choice.details == [{**head, "text": "hm, so", "signature": "sig=="}]


def test_hidden_reasoning_is_the_vendors_own_text() -> None:
    """Converse wraps it in base64 once more than the vendor's own API does."""
    blob = base64.b64encode(b"EtkECkgI+/==").decode()
    events, _ = complete(delta(0, reasoningContent={"redactedContent": blob}), *converse("a"))
    thoughts = [e for e in events if isinstance(e, ReasoningDelta)]
    head = {"type": "reasoning.encrypted", "format": "anthropic-claude-v1", "index": 0}
    assert thoughts == [ReasoningDelta(0, "", [{**head, "data": "EtkECkgI+/=="}])]


def test_an_image_comes_whole() -> None:
    """Its pieces are joined, as bytes, and go out as one URL."""
    pieces = [base64.b64encode(piece).decode() for piece in (b"ab", b"c")]
    events, _ = complete(
        begun(0, image={"format": "webp"}),
        *(delta(0, image={"source": {"bytes": piece}}) for piece in pieces),
        ended(0),
        stop(),
        metadata(),
    )
    assert collected(events).choices[0].images == ["data:image/webp;base64,YWJj"]


def test_citations_are_annotations_and_extras_where_they_name_no_place() -> None:
    """Links in OpenAI's shape; places in documents as Anthropic's own API tells them."""
    page = {
        "title": "Facts",
        "source": "https://example.com/facts",
        "sourceContent": [{"text": "It "}, {"text": "is."}],
        "location": {"searchResultLocation": {"searchResultIndex": 0, "start": 0, "end": 1}},
    }
    paper = {"title": "paper", "location": {"documentPage": {"documentIndex": 0, "start": 1}}}
    events, finish = complete(
        delta(0, text="Well: "),
        ended(0),
        delta(1, citation=page),
        delta(1, text="it is."),
        delta(1, citation=paper),
        delta(1, citation={**page, "source": "kb-12", "sourceContent": []}),
        delta(1, citation={"title": "nowhere"}),
        ended(1),
        stop(),
        metadata(),
    )
    link = {
        "url": "https://example.com/facts",
        "title": "Facts",
        "start_index": 6,
        "end_index": 12,
        "content": "It is.",
    }
    place = {
        "type": "page_location",
        "cited_text": "",
        "document_index": 0,
        "document_title": "paper",
        "start_page_number": 1,
        "end_page_number": 0,
    }
    found = {
        "type": "search_result_location",
        "cited_text": "",
        "source": "kb-12",
        "title": "Facts",
        "search_result_index": 0,
        "start_block_index": 0,
        "end_block_index": 1,
    }
    expected = [
        {"type": "url_citation", "url_citation": link},
        {"type": "citation", "citation": place},
        {"type": "citation", "citation": found},
    ]
    assert collected(events).choices[0].annotations == expected
    assert finish.extras == {"citations": [{"title": "nowhere"}]}


def test_tools_of_the_server_are_no_calls_for_the_client() -> None:
    """Neither the call nor its result; both are told under a name of their own."""
    use = {"toolUseId": "s1", "name": "nova_grounding", "type": "server_tool_use"}
    events, finish = complete(
        begun(0, toolUse=use),
        delta(0, toolUse={"input": '{"q":1}'}),
        ended(0),
        begun(1, toolResult={"toolUseId": "s1", "status": "success"}),
        delta(1, toolResult=[{"text": "found"}]),
        ended(1),
        *converse("a"),
    )
    assert not any(isinstance(e, ToolCallDelta) for e in events)
    assert finish.choices[0].reason == "stop"
    assert finish.extras == {
        "server_tools": [
            {**use, "input": '{"q":1}'},
            {"toolUseId": "s1", "status": "success", "content": [{"text": "found"}]},
        ]
    }


def test_a_guardrails_trace_stays_here() -> None:
    """It repeats the very words that the guardrail took out."""
    told = {"trace": {"guardrail": {"modelOutput": ["secret"]}, "promptRouter": {"a": 1}}}
    _, finish = complete(*converse("a")[:-1], event("metadata", told))
    assert finish.extras == {"trace": {"promptRouter": {"a": 1}}}


def test_an_exception_in_the_stream_comes_after_what_was_said() -> None:
    """Also where both arrive in one read."""
    events, failure = play(text("half") + exception("throttlingException", "slow down"))
    assert events == [ResponseStart(), TextDelta(0, "half")]
    assert isinstance(failure, RateLimited)
    assert failure.message == "slow down"


def test_a_frame_that_is_no_json_is_dropped_and_counted() -> None:
    """The answer stands."""
    _, finish = complete(event("contentBlockDelta", b"{not JSON"), *converse("a"))
    assert finish.dropped_events == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"contentBlockIndex": "first"},
        {"delta": "text"},
        {"delta": {"reasoningContent": {"redactedContent": "no base64!"}}},
    ],
)
def test_an_event_of_another_wire_is_a_protocol_error(payload: Any) -> None:
    """JSON that is not of the wire is not dropped."""
    _, failure = play(event("contentBlockDelta", payload))
    assert isinstance(failure, ProtocolError)


def test_an_event_that_nobody_knows_is_passed_over() -> None:
    """The service may grow."""
    complete(event("somethingNew", {"a": [1]}), *converse("a"))


WHOLE = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
                {"text": "Grüße"},
                {"toolUse": {"toolUseId": "t1", "name": "a", "input": {"x": [1.0, "ü"]}}},
                {"toolUse": {"toolUseId": "t2", "name": "b", "input": {}}},
                {"image": {"format": "png", "source": {"bytes": "YWJj"}}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": {"inputTokens": 4, "outputTokens": 5, "totalTokens": 9},
    "metrics": {"latencyMs": 5},
}


def test_a_whole_answer_is_understood() -> None:
    """As if it had been streamed."""
    events, finish = complete(json.dumps(WHOLE, ensure_ascii=False).encode())
    [choice] = collected(events).choices
    assert (choice.text, choice.reasoning, choice.images) == (
        "Grüße", "hm", ["data:image/png;base64,YWJj"]
    )  # fmt: skip
    assert [(c.id, c.name, json.loads(c.arguments)) for c in choice.calls] == [
        ("t1", "a", {"x": [1.0, "ü"]}),
        ("t2", "b", {}),
    ]
    assert choice.details[0]["signature"] == "s"
    assert finish.usage == Usage(4, 5)
    assert finish.choices == (ChoiceEnd(0, "tool_calls", "tool_use"),)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"stopReason": None}, StreamTruncated),
        ({"stopReason": [["end_turn"]]}, ProtocolError),
        ({"stopReason": ""}, StreamTruncated),
        ({"output": None}, ProtocolError),
        ({"output": {"message": {"content": ["text"]}}}, ProtocolError),
        ({"output": {"message": {"content": 7}}}, ProtocolError),
    ],
)
def test_a_whole_answer_that_is_none_is_refused(
    change: dict[str, Any], kind: type[BackendError]
) -> None:
    """It may be any JSON."""
    _, failure = play(json.dumps(WHOLE | change).encode())
    assert type(failure) is kind


# Recorded answers: our reading against botocore's own.


def recordings() -> list[Path]:
    """Return the recorded answers that are no errors."""
    return [folder for folder in sorted(ROOT.glob("*")) if not folder.name.startswith("error")]


def recorded() -> Any:
    """Parametrize over them, or skip with the reason."""
    if not recordings():
        reason = "the recordings are not beside this checkout (../shared/recordings)"
        return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason))])
    return pytest.mark.parametrize("case", [pytest.param(f, id=f.name) for f in recordings()])


def body_of(case: Path) -> tuple[bytes, bool]:
    """Return a recorded body, with its frames, and whether it is a stream."""
    framing = json.loads((case / "meta.json").read_text())["framing"]
    body = (case / "response.body").read_bytes()
    if framing == "payload-lines":
        events = [json.loads(line) for line in body.splitlines() if line.strip()]
        body = b"".join(event(*item) for document in events for item in document.items())
    return body, framing != "json"


class _Raw:
    """What botocore reads a stream from."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Any:
        yield self._body

    def close(self) -> None:
        pass


def read_by_botocore(body: bytes, *, streamed: bool) -> dict[str, Any]:
    """Return text, calls, signatures and counts as AWS's own parser finds them."""
    name = "ConverseStream" if streamed else "Converse"
    model = botocore.session.get_session().get_service_model("bedrock-runtime")
    shape = model.operation_model(name).output_shape
    said, calls, reasoning, hidden = "", {}, "", []  # type: ignore[var-annotated]
    if not streamed:
        parser = create_parser("rest-json")
        found = parser.parse({"body": body, "headers": {}, "status_code": 200}, shape)
        for index, block in enumerate(found["output"]["message"]["content"]):
            said += block.get("text", "")
            for piece in block.get("citationsContent", {}).get("content", ()):
                said += piece["text"]
            use = block.get("toolUse")
            if use and use.get("type") != "server_tool_use":
                calls[index] = [use["name"], use["toolUseId"], json.dumps(use["input"])]
            reasoning += block.get("reasoningContent", {}).get("reasoningText", {}).get("text", "")
        stop, usage = found["stopReason"], found["usage"]
    else:
        stop, usage = "", {}
        payload = shape.members["stream"]
        for one in EventStream(_Raw(body), payload, EventStreamJSONParser(), name):
            block = one.get("contentBlockDelta", one.get("contentBlockStart", {}))
            index, change = block.get("contentBlockIndex"), block.get("delta", {})
            said += change.get("text", "")
            reasoning += change.get("reasoningContent", {}).get("text", "")
            if "redactedContent" in change.get("reasoningContent", {}):
                hidden.append(change["reasoningContent"]["redactedContent"].decode())
            if "start" in block:
                use = block["start"]["toolUse"]
                calls[index] = [use["name"], use["toolUseId"], ""]
            if "toolUse" in change:
                calls[index][2] += change["toolUse"]["input"]
            stop = one.get("messageStop", {}).get("stopReason", stop)
            usage = one.get("metadata", {}).get("usage", usage)
    found_calls = [(n, i, json.loads(arguments or "{}")) for n, i, arguments in calls.values()]
    return {
        "text": said, "calls": found_calls, "reasoning": reasoning, "hidden": hidden,
        "stop": stop, "usage": usage,
    }  # fmt: skip


@recorded()
def test_a_recorded_answer_is_read_as_botocore_reads_it(case: Path) -> None:
    """Text, calls, reasoning, the word for the end, and counts."""
    body, streamed = body_of(case)
    expected = read_by_botocore(body, streamed=streamed)
    events, finish = complete(body)
    [choice] = collected(events).choices
    assert choice.text == expected["text"]
    assert choice.reasoning == expected["reasoning"]
    calls = [(call.name, call.id, json.loads(call.arguments)) for call in choice.calls]
    assert calls == expected["calls"]
    hidden = [d["data"] for d in choice.details if d["type"] == "reasoning.encrypted"]
    assert hidden == expected["hidden"]
    assert choice.raw_reason == expected["stop"]
    counts = expected["usage"]
    assert finish.usage is not None
    cached = counts.get("cacheReadInputTokens", 0) + counts.get("cacheWriteInputTokens", 0)
    assert finish.usage.prompt_tokens == counts["inputTokens"] + cached
    assert finish.usage.completion_tokens == counts["outputTokens"]
    assert finish.dropped_events == 0


@recorded()
def test_where_a_recorded_answer_is_cut_changes_nothing(case: Path) -> None:
    """64 offsets, and byte by byte."""
    body, _ = body_of(case)
    whole = play(body)
    for offset in range(0, len(body), max(1, len(body) // 64)):
        assert play(body[:offset], body[offset:]) == whole
    assert play(*(bytes([byte]) for byte in body)) == whole


@recorded()
def test_a_recorded_answer_that_breaks_off_never_looks_complete(case: Path) -> None:
    """Cut before its stop reason, it says nothing that was not said."""
    body, streamed = body_of(case)
    end = body.index(b"messageStop") if streamed else len(body)
    whole, _ = play(body)
    for offset in range(0, end, max(1, end // 64)):
        events, failure = play(body[:offset])
        assert isinstance(failure, StreamTruncated)
        assert events == whole[: len(events)]


def test_what_comes_in_many_pieces_costs_as_much_as_it_is_long() -> None:
    """Input of a server's tool, and of a call whose name comes last: a worker stands still else."""

    def spent_s(start: dict[str, Any], count: int) -> float:
        body = begun(0, **start) + delta(0, toolUse={"input": "x"}) * count
        began = time.process_time()
        ConverseDecoder().feed(body)
        return time.process_time() - began

    for start in ({"toolUse": {"toolUseId": "s", "type": "server_tool_use"}}, {"toolUse": {}}):
        few = min(spent_s(start, 20_000) for _ in range(3))
        assert min(spent_s(start, 200_000) for _ in range(2)) < 40 * few
