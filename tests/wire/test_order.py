"""A whole answer says what its stream adds up to, in the same order, whatever came in turns."""

from __future__ import annotations

import json
import time
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
    # Citations that come apart from their text have tests of their own: a stream is late for them.
    kept: list[Delta] = []
    for event in events:
        if not isinstance(event, AnnotationDelta) or isinstance(
            kept[-1] if kept else None, TextDelta | AnnotationDelta
        ):
            kept.append(event)
    return kept


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


LINK = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}


def link(start: int, end: int) -> AnnotationDelta:
    """A citation of so many characters of the answer's text."""
    place = {**LINK["url_citation"], "start_index": start, "end_index": end}
    return AnnotationDelta(0, [{"type": "url_citation", "url_citation": place}])


EARLY = [link(0, 2), TextDelta(0, "so"), TextDelta(0, " it is")]
LATE = [
    TextDelta(0, "so it is"),
    ReasoningDelta(0, "", [{"type": "reasoning.encrypted", "data": "c2ln", "index": 0}]),
    link(0, 2),
]


@pytest.mark.parametrize("events", [EARLY, LATE])
def test_citations_that_come_apart_from_their_text_are_of_it_all_the_same(
    events: list[Delta],
) -> None:
    """Before any text, or after what follows it: an upstream's order is not the text's."""
    answer = collected(events, "stop")
    content = json.loads(MESSAGES.whole(HEAD, REQUEST, answer, USAGE, COST))["content"]
    assert [(b["text"], len(b["citations"])) for b in content if b["type"] == "text"] == [
        ("so it is", 1)
    ]
    bodies = [
        json.loads(RESPONSES.whole(HEAD, asking(), answer, USAGE, COST)),
        documents(stream(events))[-1]["response"],
    ]
    for body in bodies:
        [said] = [item for item in body["output"] if item["type"] == "message"]
        [part] = said["content"]
        assert (part["text"], [c["end_index"] for c in part["annotations"]]) == ("so it is", [2])


def test_a_message_streams_early_citations_with_the_text_that_they_are_of() -> None:
    """At the end of its block; where no text ever comes, in one of their own."""
    assert [(b["text"], len(b["citations"])) for b in message(sent(*EARLY))] == [("so it is", 1)]
    assert [(b["text"], len(b["citations"])) for b in message(sent(link(0, 0)))] == [("", 1)]


def test_a_citation_counts_from_its_own_part_in_responses_and_from_the_answer_elsewhere() -> None:
    """There and back: what an upstream of that wire says of its second message is of that."""
    events = [TextDelta(0, "12345"), link(1, 3), PartStart(0), TextDelta(0, "678"), link(5, 7)]
    body = documents(stream(events))[-1]["response"]
    [said] = body["output"]
    spans = [
        (c["start_index"], c["end_index"]) for part in said["content"] for c in part["annotations"]
    ]
    assert spans == [(1, 3), (0, 2)]
    document = {"id": "r", "object": "response", "status": "completed", "output": body["output"]}
    decoder = ResponsesDecoder()
    again = [*decoder.feed(json.dumps(document).encode()), *decoder.end()]
    links = [
        (entry["url_citation"]["start_index"], entry["url_citation"]["end_index"])
        for event in again
        if isinstance(event, AnnotationDelta)
        for entry in event.annotations
    ]
    assert links == [(1, 3), (5, 7)]


def test_messages_around_what_is_not_shown_stay_apart() -> None:
    """A search of the vendor's own between them is no item of ours."""
    said = {"type": "message", "role": "assistant"}
    output = [
        {**said, "id": "m1", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "web_search_call", "id": "ws", "status": "completed"},
        {**said, "id": "m2", "content": [{"type": "output_text", "text": "Found."}]},
    ]
    document = {"id": "r", "object": "response", "status": "completed", "output": output}
    decoder = ResponsesDecoder()
    events = [*decoder.feed(json.dumps(document).encode()), *decoder.end()]
    body = documents(stream([e for e in events if isinstance(e, DELTAS)]))[-1]["response"]
    assert [item["content"][0]["text"] for item in body["output"]] == ["I look.", "Found."]


def test_blanks_after_the_end_of_a_call_open_no_other() -> None:
    """Some servers send a line's end for a call after the next one has begun."""
    events = [
        ToolCallDelta(0, 0, "c0", "f", "{}"),
        ToolCallDelta(0, 1, "c1", "g", "{}"),
        ToolCallDelta(0, 0, None, None, "\n"),
    ]
    assert [block["id"] for block in message(sent(*events))] == ["c0", "c1"]
    answer = collected(list(events), "tool_calls")
    content = json.loads(MESSAGES.whole(HEAD, REQUEST, answer, USAGE, COST))["content"]
    assert [block["id"] for block in content] == ["c0", "c1"]


def test_log_probabilities_of_a_call_make_no_message() -> None:
    """Servers such as vLLM send them beside each piece, and Responses has no place for them."""
    tokens = TextDelta(0, "", {"content": [TOKEN]})
    events = [
        *(tokens, ToolCallDelta(0, 0, "c0", "f", '{"a"')),
        *(tokens, ToolCallDelta(0, 0, None, None, ":1}"), tokens),
    ]
    body = documents(stream(events))[-1]["response"]
    assert [item["type"] for item in body["output"]] == ["function_call"]


def test_what_comes_late_for_an_item_of_reasoning_makes_no_second_one() -> None:
    """Its encrypted part may be told with the last event only; an id names one item."""
    named = {"format": OPENAI, "id": "rs_1"}
    events = [
        ReasoningDelta(0, "hm", [{"type": "reasoning.summary", "summary": "hm", **named}]),
        TextDelta(0, "so"),
        ReasoningDelta(0, "", [{"type": "reasoning.encrypted", "data": "c2VjcmV0", **named}]),
    ]
    body = documents(stream(events))[-1]["response"]
    assert [item["type"] for item in body["output"]] == ["reasoning", "message"]
    assert body["output"][0]["encrypted_content"] == "c2VjcmV0"


def test_citations_told_before_and_after_their_text_keep_their_order() -> None:
    """The early ones first, in a stream as in a whole message."""
    events = [link(0, 1), TextDelta(0, "ab"), link(1, 2), TextDelta(0, "c")]
    events[0].annotations[0]["url_citation"]["title"] = "early"
    content = message(sent(*events))
    whole = json.loads(MESSAGES.whole(HEAD, REQUEST, collected(list(events), "stop"), USAGE, COST))
    for blocks in (content, whole["content"]):
        assert [c["title"] for c in blocks[0]["citations"]] == ["early", "A"]


def test_an_answer_of_many_cited_parts_is_read_and_told_in_one_go() -> None:
    """Both ways of Responses: a worker stands still meanwhile."""

    def spent_s(count: int) -> float:
        part = {"type": "output_text", "text": "ab", "annotations": [{"type": "url_citation"}]}
        item = {"type": "message", "id": "m", "role": "assistant", "content": [part] * count}
        document = {"id": "r", "object": "response", "status": "completed", "output": [item]}
        body, encoder = json.dumps(document).encode(), RESPONSES.encoder(HEAD, asking())
        decoder, began = ResponsesDecoder(), time.process_time()
        for event in [*decoder.feed(body), *decoder.end()]:
            if isinstance(event, DELTAS):
                encoder.delta(event)
        for _ in range(count):
            encoder.delta(link(0, 1))
        return time.process_time() - began

    few = min(spent_s(300) for _ in range(3))
    assert min(spent_s(3_000) for _ in range(2)) < 30 * few
