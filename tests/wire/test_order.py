"""A whole answer says what its stream adds up to, in the same order, whatever came in turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.collect import ChatAnswer, Collector
from backends.types import (
    DELTAS,
    AnnotationDelta,
    ChoiceEnd,
    Delta,
    Finish,
    FinishReason,
    ImageDelta,
    MessageStart,
    PartStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from backends.wire import messages_reply, openai_reply, responses_reply
from backends.wire.chat import CHAT
from backends.wire.messages import MESSAGES
from backends.wire.messages_stream import MessagesDecoder
from backends.wire.responses import RESPONSES
from backends.wire.responses_stream import ResponsesDecoder
from tests.wire.test_messages_reply import REQUEST, message, sent
from tests.wire.test_responses_reply import COST, HEAD, TOKEN, USAGE, asking, documents, stream

ANTHROPIC, OPENAI = "anthropic-claude-v1", "openai-responses-v1"


def twice(text: str) -> ReasoningDelta:
    """A piece with two details, both signed."""
    return ReasoningDelta(0, text, [{"type": "reasoning.text", "text": text, "signature": "s"}] * 2)


def thought(text: str, **detail: Any) -> ReasoningDelta:
    """A piece of reasoning whose one detail says the same."""
    words = "summary" if detail["type"] == "reasoning.summary" else "text"
    return ReasoningDelta(0, text, [{**detail, words: text}])


def secret(**detail: Any) -> ReasoningDelta:
    """A piece that shows nothing."""
    return ReasoningDelta(0, "", [detail])


_text = st.sampled_from(["a", "b ", "ü", '"\n'])
_place = st.integers(0, 1)
_reasons: st.SearchStrategy[FinishReason] = st.sampled_from(
    ["stop", "length", "tool_calls", "content_filter"]
)
_index = {"index": _place}
_anthropic = {"type": st.just("reasoning.text"), "format": st.just(ANTHROPIC), **_index}
_summary = {"type": st.just("reasoning.summary"), "format": st.just(OPENAI), **_index}
_encrypted = {"type": st.just("reasoning.encrypted"), **_index, "data": st.just("c2VjcmV0")}
_signed = {**_anthropic, "signature": st.just("sig")}
_CITED = {"type": "url_citation", "url_citation": {"url": "https://a.example"}}
_kinds: tuple[st.SearchStrategy[Delta], ...] = (
    st.builds(TextDelta, st.just(0), _text),
    st.builds(TextDelta, st.just(0), _text, st.sampled_from([None, {"content": [TOKEN]}])),
    st.builds(RefusalDelta, st.just(0), _text),
    st.builds(ReasoningDelta, st.just(0), _text),
    st.builds(thought, _text, **_anthropic),
    st.builds(thought, _text, **_signed),
    st.builds(secret, **_signed),
    st.builds(thought, _text, **_summary, id=st.sampled_from(["rs_1", "rs_2"])),
    st.builds(secret, **_encrypted, format=st.sampled_from([ANTHROPIC, OPENAI])),
    st.builds(twice, _text),
    st.just(AnnotationDelta(0, [_CITED])),
    st.just(ImageDelta(0, "data:image/png;base64,AAAA")),
    st.builds(MessageStart, st.just(0), st.sampled_from([None, "commentary"])),
    st.just(PartStart(0)),
)
_runs = st.one_of([st.lists(kind, min_size=1, max_size=3) for kind in _kinds])
"""The same kind is likely to follow itself."""


CALLS = [
    *(["{}"], ["", "{}"], ['{"a"', ":1}"], ['{"b": "}', '"', "}"]),
    *(["", "*** ", '"é\n', ""], ["x", ""]),  # of custom tools, which an empty piece ends
]


@st.composite
def answers(draw: st.DrawFn, *, cut: bool = False) -> list[Delta]:
    """Draw the events of one choice: up to three calls, their pieces among all else."""
    left = [
        list(pieces)
        for pieces in draw(
            st.lists(
                st.sampled_from(CALLS),
                max_size=3,
            )
        )
    ]
    custom = [pieces[-1] == "" for pieces in left]
    if cut and left:
        left[-1] = left[-1][:1]
    order = [number for number, pieces in enumerate(left) for _ in pieces]
    others = [event for run in draw(st.lists(_runs, max_size=5)) for event in run][::-1]
    events: list[Delta] = []
    begun: dict[int, int] = {}
    for number in draw(st.permutations([*order, *[-1] * len(others)])):
        if number < 0:
            events.append(others.pop())
            continue
        first = number not in begun
        place = begun.setdefault(number, len(begun))
        names = (f"call_{place}", "f") if first else (None, None)
        events.append(ToolCallDelta(0, place, *names, left[number].pop(0), custom[number]))
    return events


def collected(events: list[Delta], reason: FinishReason, batch: int = 1) -> ChatAnswer:
    """What the gateway collects for a whole answer, however the events came together."""
    collector = Collector()
    for start in range(0, len(events), batch):
        collector.add(events[start : start + batch])
    collector.add([Finish((ChoiceEnd(0, reason, reason),), USAGE)])
    return collector.answer()


@given(answers(cut=True), _reasons, st.integers(1, 3))
def test_a_whole_response_is_that_of_the_streams_last_event(
    events: list[Delta], reason: FinishReason, batch: int
) -> None:
    """To the letter: items in order, parts, ids, statuses."""
    answer = collected(events, reason, batch)
    body = responses_reply.encode_answer(HEAD, asking(), answer, USAGE, COST)
    assert json.loads(body) == documents(stream(events, reason))[-1]["response"]


@given(answers(), _reasons)
def test_a_whole_message_has_the_blocks_of_its_stream(
    events: list[Delta], reason: FinishReason
) -> None:
    """In their order, each as a plain reader puts it together."""
    finish = Finish((ChoiceEnd(0, reason, reason),), USAGE)
    body = messages_reply.encode_answer(HEAD, REQUEST, collected(events, reason), USAGE, COST)
    assert json.loads(body)["content"] == message(sent(*events, finish=finish))


@given(answers(cut=True))
def test_a_chats_message_has_everything_of_one_kind_together(events: list[Delta]) -> None:
    """As OpenAI's has it: there is no order between the kinds."""
    body = openai_reply.encode_answer(HEAD, REQUEST, collected(events, "stop"), USAGE, COST)
    said = json.loads(body)["choices"][0]["message"]

    def joined(kind: Any) -> str:
        return "".join(event.text for event in events if isinstance(event, kind))

    calls: dict[int, str] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls[event.call_index] = calls.get(event.call_index, "") + event.arguments
    made = said.get("tool_calls", [])
    assert (said["content"] or "", said["refusal"] or "") == (
        joined(TextDelta),
        joined(RefusalDelta),
    )
    assert said["reasoning"] or joined(ReasoningDelta) == ""
    assert [
        call["function"]["arguments"] if call["type"] == "function" else call["custom"]["input"]
        for call in made
    ] == list(calls.values())


INTERLEAVED: list[Delta] = [
    thought("One.", type="reasoning.text", format=ANTHROPIC, index=0),
    secret(type="reasoning.text", format=ANTHROPIC, index=0, signature="s1"),
    TextDelta(0, "I look. "),
    ToolCallDelta(0, 0, "c0", "f", '{"a":'),
    ToolCallDelta(0, 0, None, None, "1}"),
    thought("Two.", type="reasoning.text", format=ANTHROPIC, index=1),
    secret(type="reasoning.text", format=ANTHROPIC, index=1, signature="s2"),
    secret(type="reasoning.encrypted", format=ANTHROPIC, index=2, data="d"),
    TextDelta(0, "And "),
    TextDelta(0, "again."),
    ToolCallDelta(0, 1, "c1", "f", ""),
]


def test_interleaved_thinking_stays_where_it_was() -> None:
    """Anthropic refuses a next turn in which thinking has moved."""
    answer = collected(INTERLEAVED, "tool_calls")
    body = messages_reply.encode_answer(HEAD, REQUEST, answer, USAGE, COST)
    assert json.loads(body)["content"] == [
        {"type": "thinking", "thinking": "One.", "signature": "s1"},
        {"type": "text", "text": "I look. "},
        {"type": "tool_use", "id": "c0", "name": "f", "input": {"a": 1}},
        {"type": "thinking", "thinking": "Two.", "signature": "s2"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "And again."},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
    ]


@pytest.mark.parametrize("arguments", ['{"cut', "[1]"])
def test_arguments_that_are_no_object_are_kept_in_a_whole_message(arguments: str) -> None:
    """Cut off by a limit, or never an object."""
    answer = collected([ToolCallDelta(0, 0, "c0", "f", arguments)], "length")
    body = messages_reply.encode_answer(HEAD, REQUEST, answer, USAGE, COST)
    kept = arguments if arguments == '{"cut' else [1]
    assert json.loads(body)["content"][0]["input"] == {"arguments": kept}


def test_citations_stay_with_their_part_of_the_text() -> None:
    """Anthropic cites blocks: what follows a cited one uncited stays a block of its own."""
    place = {"type": "char_location", "cited_text": "so", "document_index": 0}
    blocks: list[dict[str, Any]] = [
        {"type": "text", "text": "It is so", "citations": [place]},
        {"type": "text", "text": ", and "},
        {"type": "text", "text": "also so", "citations": [place, place]},
        {"type": "text", "text": "."},
        {"type": "text", "text": " Full stop."},
    ]
    document = {"type": "message", "content": blocks, "stop_reason": "end_turn"}
    decoder = MessagesDecoder()
    events = [*decoder.feed(json.dumps(document).encode()), *decoder.end()]
    collector = Collector()
    collector.add(events)
    answer, request = collector.answer(), asking()
    message = json.loads(MESSAGES.whole(HEAD, request, answer, USAGE, COST))
    found = [{k: v for k, v in block.items() if v is not None} for block in message["content"]]
    assert found == blocks
    response = json.loads(RESPONSES.whole(HEAD, request, answer, USAGE, COST))
    [item] = response["output"]
    told = [(part["text"], len(part["annotations"])) for part in item["content"]]
    assert told == [(block["text"], len(block.get("citations", ()))) for block in blocks]
    chat = json.loads(CHAT.whole(HEAD, request, answer, USAGE, COST))["choices"][0]["message"]
    assert chat["content"] == "".join(block["text"] for block in blocks)


def test_parts_of_a_message_of_responses_stay_apart() -> None:
    """Streamed and whole, with the end of each before the next one's beginning."""
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in ("a", "b")]
    item = {"type": "message", "id": "m", "role": "assistant", "content": parts}
    document = {"id": "r", "object": "response", "status": "completed", "output": [item]}
    decoder = ResponsesDecoder()
    events = [*decoder.feed(json.dumps(document).encode()), *decoder.end()]
    encoder = RESPONSES.encoder(HEAD, asking())
    stream = encoder.open() + b"".join(encoder.delta(e) for e in events if isinstance(e, DELTAS))
    told = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: ")]
    steps = [(e["type"].removeprefix("response."), e.get("content_index")) for e in told[3:]]
    assert steps == [
        ("content_part.added", 0),
        ("output_text.delta", 0),
        ("output_text.done", 0),
        ("content_part.done", 0),
        ("content_part.added", 1),
        ("output_text.delta", 1),
    ]
