"""A whole answer is its stream, added up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.collect import Collector
from backends.types import (
    ChoiceEnd,
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
