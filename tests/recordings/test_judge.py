"""The judge itself: what is wrong is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backends.errors import StreamTruncated
from backends.types import ChoiceEnd, Finish, ResponseStart, TextDelta, ToolCallDelta
from tests.recordings import readers
from tests.recordings.cases import Case, own
from tests.recordings.compare import differences, laws
from tests.recordings.extract import Extract, Said, Tokens


def named(name: str) -> Case:
    """Return one of our own bodies."""
    return next(case for case in own() if case.name == f"own/{name}")


LIES: list[tuple[str, str, dict[str, Any]]] = [
    ("chat/text-stream.sse", "text is", {"text": "Grüße, Zürich"}),
    ("chat/reasoning-stream.sse", "reasoning is", {"reasoning": ["Nine."]}),
    ("chat/reasoning-stream.details.sse", "signatures are lost", {"signatures": [("bm9uZQ==",)]}),
    ("chat/refusal-stream.sse", "refusal is", {"refusal": ""}),
    ("chat/tool-stream.sse", "calls are", {"calls": [("look", {"place": "Chur"})]}),
    ("chat/tool-stream.bare.sse", "ends as tool_calls", {"finish": "stop"}),
    ("chat/text-stream.crlf.sse", "the wire's word", {"raw": "max_tokens"}),
    ("chat/text-stream.sse", "images", {"images": 1}),
]


@pytest.mark.parametrize(("name", "found", "lie"), LIES)
def test_another_reading_is_a_difference(
    name: str, found: str, lie: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each thing that is compared."""
    case = named(name)
    assert differences(case) == []
    truth = readers.read(case)
    told = Extract({0: replace(truth.choices[0], **lie)}, truth.usage, truth.error)
    monkeypatch.setattr(readers, "read", lambda _: told)
    assert any(found in difference for difference in differences(case))


@pytest.mark.parametrize(
    "change",
    [
        {"usage": None},
        {"usage": Tokens(12, 5, 4, None, None)},
        {"error": "another sentence"},
        {"choices": {}},
        {"choices": {0: Said(text="Grüße, Zürich €😀", finish=None)}},
    ],
)
def test_another_ending_is_a_difference(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Usage to the last detail, an error, a choice too many, an end that nobody sent."""
    case = named("chat/text-stream.sse")
    told = replace(readers.read(case), **change)
    monkeypatch.setattr(readers, "read", lambda _: told)
    assert differences(case)


START, END = ResponseStart(), Finish((ChoiceEnd(0, "stop", "stop"),), None)
CALL = ToolCallDelta(0, 0, "a", "look", "{}")


@pytest.mark.parametrize(
    "events",
    [
        [END],
        [START, START, END],
        [START, TextDelta(0, "a")],
        [START, END, TextDelta(0, "a")],
        [START, TextDelta(0, ""), END],
        [START, TextDelta(1, "a"), END],
        [START, CALL, CALL, END],
        [START, CALL, ToolCallDelta(0, 1, "a", "look", "{}"), END],
        [START, ToolCallDelta(0, 1, "a", "look", "{}"), END],
        [START, ToolCallDelta(0, 0, "a", None, "{}"), END],
        [START, ToolCallDelta(0, 0, "a", "look", ""), END],
        [START, ToolCallDelta(0, 0, "a", "look", "[1]"), END],
    ],
)
def test_unlawful_events_are_seen(events: list[Any]) -> None:
    """Starts, ends, empty deltas, calls."""
    assert list(laws(events, None))


def test_lawful_events_pass() -> None:
    """A whole answer, and one that failed on the way."""
    assert list(laws([START, TextDelta(0, "a"), CALL, END], None)) == []
    assert list(laws([START, TextDelta(0, "a")], StreamTruncated("cut"))) == []
