"""Calls of the model's own program, with which a Messages answer may end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.errors import StreamTruncated
from backends.types import ChoiceEnd, Finish, Usage
from backends.wire.messages_stream import MessagesDecoder
from tests.anthropic_wire import block, end, event, start, text
from tests.wire.plain import feed

CALLER = {"type": "code_execution_20250825", "tool_id": "srv"}
CALL: dict[str, Any] = {"type": "tool_use", "id": "t1", "name": "roll", "input": {}}
BY_PROGRAM = CALL | {"caller": CALLER}
PIECE = {"type": "input_json_delta", "partial_json": '{"x":1}'}
USAGE = {"input_tokens": 5, "output_tokens": 60}
STREAM = [start(), *text(0, "a"), *block(1, BY_PROGRAM, PIECE), *end("tool_use", USAGE)]


def ended(*reads: bytes) -> Finish:
    """Return how a good answer ends."""
    events, failure = feed(MessagesDecoder(), *reads)
    assert failure is None
    last = events[-1]
    assert isinstance(last, Finish)
    assert last.choices == (ChoiceEnd(0, "tool_calls", "tool_use"),)
    return last


def test_the_report_of_an_answer_that_ends_with_them_stands() -> None:
    """They were counted with it, though nobody knew until the end whose they are."""
    assert ended(*STREAM).usage == Usage(5, 60)
    content = [{"type": "text", "text": "a"}, BY_PROGRAM]
    document = {"type": "message", "id": "m", "content": content}
    whole = document | {"stop_reason": "tool_use", "usage": USAGE}
    assert ended(json.dumps(whole).encode()).usage == Usage(5, 60)


def test_a_report_before_them_is_none_of_them() -> None:
    """The program went on after a count, called again, and no other count followed."""
    again = [start(), *block(0, BY_PROGRAM, PIECE)]
    last = [event("message_delta", delta={"stop_reason": "tool_use"}), event("message_stop")]
    assert ended(*STREAM, *again, *last).usage is None


@pytest.mark.parametrize("after", [event("ping", index=None), b""])
def test_a_null_in_the_last_event_breaks_nothing(after: bytes) -> None:
    """Only what cannot be read at all may have been the beginning of another message."""
    stream = [*STREAM[:-1], event("message_stop", index=None), after]
    assert ended(*stream).usage == Usage(5, 60)
    assert isinstance(feed(MessagesDecoder(), *stream, STREAM[0][:40])[1], StreamTruncated)
