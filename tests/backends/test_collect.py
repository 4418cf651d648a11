"""A whole answer is its stream, added up."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.collect import Collector
from backends.types import (
    ChoiceEnd,
    Delta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
)

_index, _text = st.integers(0, 2), st.text(max_size=4)
_deltas = st.one_of(
    st.builds(TextDelta, _index, _text),
    st.builds(ReasoningDelta, _index, _text, st.none() | st.just([{"type": "reasoning.text"}])),
    st.builds(RefusalDelta, _index, _text),
    st.builds(ToolCallDelta, _index, _index, st.just("id"), st.just("name"), _text),
)


@given(st.lists(_deltas), st.lists(st.integers(0, 5)))
def test_the_answer_is_the_concatenation_of_its_deltas(
    deltas: list[StreamEvent], cuts: list[int]
) -> None:
    """Per choice, kind and call, in order, whatever the batches; and asking twice is harmless."""
    collector = Collector()
    rest = [ResponseStart(), *deltas]
    for cut in cuts:
        collector.add(rest[:cut])
        rest = rest[cut:]
    collector.add(rest)
    for _ in range(2):
        choices = collector.answer().choices
    assert [choice.index for choice in choices] == sorted({delta.index for delta in deltas})
    for choice in choices:

        def joined(kind: type, index: int = choice.index) -> str:
            return "".join(d.text for d in deltas if isinstance(d, kind) and d.index == index)

        assert choice.text == joined(TextDelta)
        assert choice.reasoning == joined(ReasoningDelta)
        assert choice.refusal == joined(RefusalDelta)
        pieces: dict[int, str] = {}
        for d in deltas:
            if isinstance(d, ToolCallDelta) and d.index == choice.index:
                pieces[d.call_index] = pieces.get(d.call_index, "") + d.arguments
        assert [call.arguments for call in choice.calls] == list(pieces.values())


def test_parallel_calls_keep_their_own_ids_names_and_arguments() -> None:
    """Pieces interleave; the first id and name of a call stand."""
    collector = Collector()
    collector.add(
        [
            ToolCallDelta(0, 0, "a", "time", ""),
            ToolCallDelta(0, 1, "b", "sum", "{"),
            ToolCallDelta(0, 0, None, None, "{}"),
            ToolCallDelta(0, 1, "later", "other", "}"),
        ]
    )
    [choice] = collector.answer().choices
    assert [(c.id, c.name, c.arguments) for c in choice.calls] == [
        ("a", "time", "{}"),
        ("b", "sum", "{}"),
    ]


def test_reasons_come_from_the_finish_and_counts_add_nothing() -> None:
    """A choice without a word still has an end."""
    collector = Collector()
    collector.add([TextDelta(0, "a"), UsageUpdate(1, 1)])
    collector.add([Finish((ChoiceEnd(0, "length", "MAX"), ChoiceEnd(1, "stop", "stop")), None)])
    first, second = collector.answer().choices
    assert (first.text, first.reason, first.raw_reason) == ("a", "length", "MAX")
    assert (second.index, second.text, second.reason) == (1, "", "stop")


def test_log_probabilities_and_reasoning_details_keep_their_order() -> None:
    """They must come back to the vendor as they came."""
    collector = Collector()
    for number in range(3):
        collector.add([TextDelta(0, "x", {"content": [{"token": str(number)}]})])
        collector.add([ReasoningDelta(0, "", [{"index": number}])])
    collector.add([TextDelta(0, "y", {"content": None})])
    [choice] = collector.answer().choices
    assert [entry["token"] for entry in choice.logprobs] == ["0", "1", "2"]
    assert [entry["index"] for entry in choice.details] == [0, 1, 2]


def test_the_order_is_kept_and_what_stands_side_by_side_is_one() -> None:
    """Also of reasoning and calls that come in turns; what is signed ends there."""
    thought = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    signed = ReasoningDelta(0, "", [{**thought, "signature": "sig"}])
    collector = Collector()
    deltas: list[Delta] = [
        ReasoningDelta(0, "a", [{**thought, "text": "a"}]),
        ReasoningDelta(0, "b", [{**thought, "text": "b"}]),
        signed,
        ReasoningDelta(0, "c", [{**thought, "index": 1, "text": "c"}]),
        TextDelta(0, "d", {"content": [1]}),
        TextDelta(1, "other"),
        TextDelta(0, "e", {"content": [2]}),
        ToolCallDelta(0, 0, "id", "f", "{"),
        ToolCallDelta(0, 0, None, None, "}"),
        ToolCallDelta(0, 1, "id1", "f", "{}"),
        ReasoningDelta(0, "g"),
        ReasoningDelta(0, "h"),
        RefusalDelta(0, "i"),
        TextDelta(0, "j"),
    ]
    collector.add(deltas)
    assert collector.answer().choices[0].events == [
        ReasoningDelta(0, "ab", [{**thought, "text": "ab"}]),
        signed,
        ReasoningDelta(0, "c", [{**thought, "index": 1, "text": "c"}]),
        TextDelta(0, "de", {"content": [1, 2]}),
        ToolCallDelta(0, 0, "id", "f", "{}"),
        ToolCallDelta(0, 1, "id1", "f", "{}"),
        ReasoningDelta(0, "gh"),
        RefusalDelta(0, "i"),
        TextDelta(0, "j"),
    ]


@pytest.mark.parametrize("details", [None, [{"type": "reasoning.text", "index": 0}]])
def test_a_long_answer_in_small_pieces_is_put_together_in_one_go(details: Any) -> None:
    """Joining costs as much as the answer is long, whether it is text, reasoning or a call."""

    def pieces(count: int) -> list[StreamEvent]:
        entry = [{**details[0], "text": "abcd"}] if details else None
        return [ReasoningDelta(0, "abcd", entry) for _ in range(count)]

    def spent_s(count: int) -> float:
        events = pieces(count)
        start = time.process_time()
        collector = Collector()
        collector.add(events)
        assert len(collector.answer().choices[0].reasoning) == 4 * count
        return time.process_time() - start

    few = min(spent_s(10_000) for _ in range(3))
    assert min(spent_s(100_000) for _ in range(3)) < 40 * few
