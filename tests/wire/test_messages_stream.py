"""Streams of Anthropic's Messages become lawful events, wherever the network cut them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.collect import Collector
from backends.errors import BackendError, ProtocolError, StreamTruncated, UpstreamFailed
from backends.types import (
    AnnotationDelta,
    ChoiceEnd,
    Finish,
    HalfUsage,
    ReasoningDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from backends.wire.messages_stream import MessagesDecoder
from tests.anthropic_wire import answer, block, end, event, start, text, tool_use
from tests.wire.test_sse import split


def play(reads: Sequence[bytes]) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode a body that arrives in these reads."""
    decoder = MessagesDecoder(lambda: "made-up")
    events: list[StreamEvent] = []
    for read in reads:
        events += decoder.feed(read)
    events += decoder.end()
    return events, decoder.failure


def decoded(*payloads: bytes) -> list[StreamEvent]:
    """Return the events of a good answer."""
    events, failure = play(payloads)
    assert failure is None
    return events


def finish(events: Sequence[StreamEvent]) -> Finish:
    """Return the last event."""
    last = events[-1]
    assert isinstance(last, Finish)
    return last


THINKING = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Let me "},
    {"type": "thinking_delta", "thinking": "see."},
    {"type": "signature_delta", "signature": "c2ln"},
)
RICH = [
    start({"input_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 10}),
    event("ping"),
    *THINKING,
    *block(1, {"type": "redacted_thinking", "data": "ZW5j"}),
    *text(2, "Grüße ", "🌍"),
    *tool_use(3, "time"),
    *tool_use(4, "sum", '{"a": "\\u00', 'fc"}'),
    *end("tool_use", {"output_tokens": 30, "cache_read_input_tokens": 20}),
]


def test_everything_of_a_message_becomes_events() -> None:
    """Reasoning with its signature, encrypted reasoning, text, calls, one finish."""
    events = decoded(*RICH)
    form = {"format": "anthropic-claude-v1"}
    assert events == [
        ResponseStart("msg_1", "claude-x"),
        UsageUpdate(33, 0),
        ReasoningDelta(
            0, "Let me ", [{"type": "reasoning.text", "text": "Let me ", **form, "index": 0}]
        ),
        ReasoningDelta(0, "see.", [{"type": "reasoning.text", "text": "see.", **form, "index": 0}]),
        ReasoningDelta(
            0, "", [{"type": "reasoning.text", "signature": "c2ln", **form, "index": 0}]
        ),
        ReasoningDelta(
            0, "", [{"type": "reasoning.encrypted", "data": "ZW5j", **form, "index": 1}]
        ),
        TextDelta(0, "Grüße "),
        TextDelta(0, "🌍"),
        ToolCallDelta(0, 0, "toolu_3", "time", ""),
        ToolCallDelta(0, 0, None, None, "{}"),
        ToolCallDelta(0, 1, "toolu_4", "sum", ""),
        ToolCallDelta(0, 1, None, None, '{"a": "\\u00'),
        ToolCallDelta(0, 1, None, None, 'fc"}'),
        Finish((ChoiceEnd(0, "tool_calls", "tool_use"),), Usage(33, 30, 20, 10)),
    ]


@given(st.data())
def test_where_the_bytes_are_cut_changes_nothing(data: st.DataObject) -> None:
    """However the bytes are split, also inside a character."""
    body = b"".join(RICH)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=40))
    assert play(split(body, cuts)) == play([body])


@pytest.mark.parametrize("upto", range(1, len(RICH)))
def test_a_stream_that_breaks_off_never_looks_complete(upto: int) -> None:
    """Cut before ``message_stop``, it is truncated; what was said before it is kept."""
    events, failure = play(RICH[:upto])
    assert isinstance(failure, StreamTruncated)
    assert not any(isinstance(event, Finish) for event in events)
    kept = [e for e in events if e != ToolCallDelta(0, 1, None, None, "{}")]
    assert kept == decoded(*RICH)[: len(kept)]


def test_collected_reasoning_has_its_signature() -> None:
    """Pieces of one block add up to one detail, which goes back unchanged."""
    collector = Collector()
    collector.add(decoded(*RICH))
    [choice] = collector.answer().choices
    assert choice.reasoning == "Let me see."
    assert choice.details == [
        {
            "type": "reasoning.text",
            "text": "Let me see.",
            "format": "anthropic-claude-v1",
            "index": 0,
            "signature": "c2ln",
        },
        {
            "type": "reasoning.encrypted",
            "data": "ZW5j",
            "format": "anthropic-claude-v1",
            "index": 1,
        },
    ]


def test_counts_replace_and_never_add_up() -> None:
    """Input tokens come at the start, and again at the end with all that was cached."""
    given = {"input_tokens": 12, "output_tokens": 1}
    last = {
        "input_tokens": 10,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 5,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 6},
    }
    events = decoded(start(given), *text(0, "x"), *end(usage=last))
    assert finish(events).usage == Usage(19, 9, 4, 5, 6)
    assert [e for e in events if isinstance(e, UsageUpdate)] == [UsageUpdate(12, 0)]


def test_usage_that_is_not_of_the_whole_answer_is_unknown() -> None:
    """The start's count alone says nothing of the end: None, and not 1."""
    given = {"input_tokens": 12, "output_tokens": 1}
    assert finish(decoded(start(given), *text(0, "x"), *end())).usage is None
    half = finish(decoded(start(), *text(0, "x"), *end(usage={"output_tokens": 2}))).usage
    assert half == HalfUsage(None, 2)


def test_input_that_comes_whole_with_its_block_is_the_arguments() -> None:
    """Some calls have no deltas."""
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    events = decoded(start(), *block(0, call), *end("tool_use"))
    assert [e for e in events if isinstance(e, ToolCallDelta)] == [
        ToolCallDelta(0, 0, "t", "f", ""),
        ToolCallDelta(0, 0, None, None, '{"a":1}'),
    ]


def test_input_that_comes_again_in_pieces_counts_once() -> None:
    """Some servers announce all of it."""
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    pieces = [{"type": "input_json_delta", "partial_json": text} for text in ('{"a"', ":1}")]
    events = decoded(start(), *block(0, call, *pieces), *end("tool_use"))
    assert "".join(e.arguments for e in events if isinstance(e, ToolCallDelta)) == '{"a":1}'


def test_an_input_is_not_lost_where_nothing_follows_it_or_its_end_is_missing() -> None:
    """An empty piece says nothing, and another block at its place ends it."""
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    empty = {"type": "input_json_delta", "partial_json": ""}
    first, piece, _ = block(0, call, empty)
    for blocks in ([first, piece, _], [first, *text(0, "hi")]):
        events = decoded(start(), *blocks, *end("tool_use"))
        said = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta))
        assert said == '{"a":1}'


def test_a_native_stop_with_calls_is_a_tool_call() -> None:
    """Whatever the upstream calls it."""
    events = decoded(start(), *tool_use(0, "f", "{}"), *end("end_turn"))
    assert finish(events).choices == (ChoiceEnd(0, "tool_calls", "end_turn"),)


def test_tools_of_the_server_are_no_calls_for_the_client() -> None:
    """They are extras, with their input; a block of a kind to come is one, too."""
    asked = {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srv", "content": []}
    events = decoded(
        start(),
        *block(0, asked, {"type": "input_json_delta", "partial_json": '{"query"'},
               {"type": "input_json_delta", "partial_json": ': "x"}'}),
        *block(1, found),
        *block(2, {"type": "of 2030"}),
        *text(3, "Found."),
        *end(),
    )  # fmt: skip
    assert not any(isinstance(e, ToolCallDelta) for e in events)
    assert finish(events).extras == {
        "blocks": [{**asked, "input": {"query": "x"}}, found, {"type": "of 2030"}]
    }
    assert finish(events).choices[0].reason == "stop"


def test_citations_of_addresses_are_url_citations_over_their_text() -> None:
    """In OpenAI's shape, over the characters of their block, and as they came beside it."""
    web = {
        "type": "web_search_result_location",
        "url": "https://example.com",
        "title": "T",
        "cited_text": "said",
        "encrypted_index": "e",
    }
    page = {"type": "char_location", "document_index": 0, "cited_text": "c"}
    events = decoded(
        start(),
        *text(0, "Ü: "),
        *block(
            1,
            {"type": "text", "text": "", "citations": []},
            {"type": "citations_delta", "citation": web},
            {"type": "text_delta", "text": "they said"},
            {"type": "citations_delta", "citation": page},
        ),
        *end(),
    )
    [cited] = [e for e in events if isinstance(e, AnnotationDelta)]
    shown = {"url": "https://example.com", "title": "T", "content": "said"}
    assert cited.annotations == [
        {
            "type": "url_citation",
            "url_citation": {**shown, "start_index": 3, "end_index": 12},
            "citation": web,
        },
        {"type": "citation", "citation": page},
    ]


def test_a_refusal_is_a_content_filter_and_keeps_its_details() -> None:
    """Also amid an answer."""
    details = {"type": "refusal", "category": "bio", "explanation": "no"}
    events = decoded(start(), *text(0, "Well"), *end("refusal", stop_details=details))
    assert finish(events).choices == (ChoiceEnd(0, "content_filter", "refusal"),)
    assert finish(events).extras == {"stop_details": details}


def test_the_stop_sequence_that_was_hit_is_told() -> None:
    """As an extra: other wires do not say it."""
    events = decoded(start(), *text(0, "a"), *end("stop_sequence", stop_sequence="END"))
    assert finish(events).choices == (ChoiceEnd(0, "stop", "stop_sequence"),)
    assert finish(events).extras == {"stop_sequence": "END"}


def test_messages_that_a_program_continues_are_one_answer() -> None:
    """A call of the model's own program pauses one. The client answers if no other follows."""
    caller = {"type": "code_execution_20250825", "tool_id": "srv"}
    call = {"type": "tool_use", "id": "t1", "name": "roll", "input": {"p": 1}, "caller": caller}
    again = {**call, "id": "t2"}
    said = [
        start(), *text(0, "Dice: "), *block(1, call), *end("tool_use", {"output_tokens": 1}),
        start(content=[again], stop_reason="tool_use"), event("message_stop"),
        start({"input_tokens": 9}), *text(0, "six"), *end("end_turn", {"output_tokens": 4}),
    ]  # fmt: skip
    events = decoded(*said)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Dice: six"
    assert not any(isinstance(e, ToolCallDelta) for e in events)
    assert finish(events).extras == {"blocks": [call, again]}
    assert finish(events).choices == (ChoiceEnd(0, "stop", "end_turn"),)
    assert finish(events).usage == Usage(9, 4)
    assert isinstance(play(said[:-2])[1], StreamTruncated)
    paused = said[: said.index(event("message_stop")) + 1]
    events = decoded(*paused)
    assert ToolCallDelta(0, 0, "t1", "roll", '{"p":1}') in events
    assert finish(events).choices == (ChoiceEnd(0, "tool_calls", "tool_use"),)
    assert finish(events).extras == {"callers": {"t1": caller}}
    assert isinstance(play([*paused, said[-6][:40]])[1], StreamTruncated)


def test_a_programs_call_may_come_in_pieces() -> None:
    """Beside one that the model made itself; of an answer that was cut it is nobody's."""
    caller = {"type": "code_execution_20250825", "tool_id": "srv"}
    call = {"type": "tool_use", "id": "t1", "name": "roll", "input": {}, "caller": caller}
    pieces = [{"type": "input_json_delta", "partial_json": text} for text in ('{"p"', ": 2}")]
    own = block(1, {"type": "tool_use", "id": "t2", "name": "f", "caller": {"type": "direct"}})
    said = [start(), *block(0, call, *pieces), *own, *end("tool_use")]
    events = decoded(*said)
    assert [e for e in events if isinstance(e, ToolCallDelta)] == [
        ToolCallDelta(0, 0, "t2", "f", ""),
        ToolCallDelta(0, 0, None, None, "{}"),
        ToolCallDelta(0, 1, "t1", "roll", '{"p": 2}'),
    ]
    events, failure = play(said[:3])
    assert isinstance(failure, StreamTruncated)
    assert not any(isinstance(e, ToolCallDelta) for e in events)


def test_what_only_anthropic_says_of_an_answer_is_kept() -> None:
    """Of the container, of edits to the context, and of the turns that a count is made of."""
    more = {"container": {"id": "c"}, "context_management": {"applied_edits": []}}
    usage = {"input_tokens": 1, "output_tokens": 2, "iterations": [{"type": "message"}]}
    last = event(
        "message_delta",
        delta={"stop_reason": "compaction", "container": more["container"]},
        usage=usage,
        context_management=more["context_management"],
    )
    expected = {**more, "usage": {"iterations": usage["iterations"]}}
    assert finish(decoded(start(), *text(0, "a"), last, event("message_stop"))).extras == expected
    document = {**WHOLE, **more, "usage": usage}
    events, failure = play([json.dumps(document).encode()])
    assert failure is None
    extras = finish(events).extras or {}
    assert {name: extras[name] for name in expected} == expected


def test_an_error_may_be_all_there_is() -> None:
    """A 200 with one event."""
    events, failure = play([event("error", error={"type": "overloaded_error", "message": "Full"})])
    assert events == []
    assert isinstance(failure, UpstreamFailed)
    assert failure.message == "Full"


@pytest.mark.parametrize(
    "payload",
    [
        {"choices": []},
        {"type": []},
        {"type": "content_block_delta", "index": 0, "delta": "text"},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "thinking_delta"}},
    ],
)
def test_json_of_another_wire_is_a_protocol_error(payload: Any) -> None:
    """It is not dropped: the endpoint is not what it claims to be."""
    _, failure = play([b"data: " + json.dumps(payload).encode() + b"\n\n"])
    assert isinstance(failure, ProtocolError)


WHOLE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZW5j"},
        {"type": "text", "text": "Grüße 🌍"},
        {"type": "tool_use", "id": "toolu_3", "name": "time", "input": {}},
        {"type": "tool_use", "id": "toolu_4", "name": "sum", "input": {"a": "ü"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 3,
        "cache_read_input_tokens": 20,
        "cache_creation_input_tokens": 10,
        "output_tokens": 30,
    },
}


def test_a_whole_answer_is_what_its_stream_adds_up_to() -> None:
    """One decoder serves both."""
    whole, streamed = Collector(), Collector()
    events = decoded(json.dumps(WHOLE).encode())
    whole.add(events)
    streamed.add(decoded(*RICH))
    [one], [other] = whole.answer().choices, streamed.answer().choices
    for call in (*one.calls, *other.calls):
        call.arguments = json.dumps(json.loads(call.arguments))
    assert one == other
    assert finish(events).usage == Usage(33, 30, 20, 10)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, UpstreamFailed),
        ({"type": "message"}, ProtocolError),
        ({**WHOLE, "stop_reason": None}, StreamTruncated),
    ],
)
def test_a_whole_answer_that_is_none_is_an_error(document: Any, kind: type[BackendError]) -> None:
    """It reports one, is of another wire, or did not end."""
    _, failure = play([json.dumps(document).encode()])
    assert type(failure) is kind


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(noise: bytes) -> None:
    """Whatever comes, there is one end."""
    events, failure = play([b"".join(answer("ok")[:4]), noise])
    assert (failure is None) == any(isinstance(event, Finish) for event in events)
