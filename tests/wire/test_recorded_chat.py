"""Recorded chat answers, streamed and whole, equal what a plain reader finds in them.

The reader shares no code with the codec. Without the recordings these tests skip.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from tests.wire.test_recordings import NO_FINISH, Recording, cases, listed, recordings

from backends.collect import Collector
from backends.types import Finish, ResponseStart, Usage
from backends.wire.openai_chat import StreamDecoder

WHOLE = [
    r
    for r in recordings()
    if r.body.lstrip()[:1] == b"{" and "error" not in r.meta["kind"]
]  # fmt: skip


def reads_whole() -> Any:
    """Parametrize over whole answers, or skip with the reason."""
    if not WHOLE:
        reason = "the recordings are not beside this checkout (../shared/recordings)"
        return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason))])
    return pytest.mark.parametrize("case", [pytest.param(r, id=r.name) for r in WHOLE])


def documents_of(body: bytes) -> list[dict[str, Any]]:
    """Return the documents of an answer."""
    if body.lstrip()[:1] == b"{":
        return [json.loads(body)]
    lines = [line[5:].strip() for line in body.splitlines() if line[:5] == b"data:"]
    return [json.loads(line) for line in lines if line not in (b"[DONE]", b"")]


def text_of(content: Any, kind: str = "text") -> str:
    """Return the text of content in any of its forms."""
    if isinstance(content, list):
        found = [part.get(kind) or "" for part in content if part.get("type") == kind]
        return "".join(p if isinstance(p, str) else text_of(p) for p in found)
    if isinstance(content, dict):
        return json.dumps(content, separators=(",", ":")) if kind == "text" else ""
    return (content or "") if kind == "text" else ""


def plainly(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Read an answer in the plainest way: text, reasoning, calls and counts."""
    text: dict[int, str] = defaultdict(str)
    thought: dict[int, str] = defaultdict(str)
    calls: dict[int, list[dict[str, str]]] = defaultdict(list)
    open_calls: dict[tuple[int, Any], dict[str, str]] = {}
    counts: Any = None
    for document in documents:
        counts = document.get("usage") or (document.get("x_groq") or {}).get("usage") or counts
        for choice in document.get("choices") or ():
            index = choice["index"]
            said = choice.get("message") if len(documents) == 1 else choice.get("delta")
            said = said or choice.get("delta") or {}
            text[index] += text_of(said.get("content"))
            thought[index] += said.get("reasoning") or said.get("reasoning_content") or ""
            thought[index] += text_of(said.get("content"), "thinking")
            pieces = list(said.get("tool_calls") or ())
            if (said.get("function_call") or {}).get("name"):
                pieces.append({"function": said["function_call"]})
            for piece in pieces:
                function = piece.get("function") or {}
                at = (index, piece.get("index"))
                call = open_calls.get(at)
                named = function.get("name") and piece.get("id")
                if call is None or (named and call["id"] != piece["id"]):
                    call = open_calls[at] = {"id": piece.get("id") or "", "name": "", "said": ""}
                    calls[index].append(call)
                call["name"] = call["name"] or function.get("name") or ""
                call["said"] += function.get("arguments") or ""
    return {"text": text, "thought": thought, "calls": calls, "counts": counts}


def compare(case: Recording) -> None:
    """Decode an answer and hold it against the plain reader's."""
    decoder = StreamDecoder(implied_reason="stop" if case.name.startswith("snowflake") else None)
    events = [*decoder.feed(case.body), *decoder.end()]
    assert decoder.failure is None
    assert isinstance(events[0], ResponseStart)
    finish = events[-1]
    assert isinstance(finish, Finish)
    collector = Collector()
    collector.add(events)
    plain = plainly(documents_of(case.body))
    for choice in collector.answer().choices:
        assert choice.text == plain["text"][choice.index]
        assert choice.reasoning == plain["thought"][choice.index]
        wanted = [
            (call["name"], json.loads(call["said"] or "{}"))
            for call in plain["calls"][choice.index]
        ]
        assert [(call.name, json.loads(call.arguments)) for call in choice.calls] == wanted
        ids = [call["id"] for call in plain["calls"][choice.index]]
        if all(ids) and len(set(ids)) == len(ids):
            assert [call.id for call in choice.calls] == ids
        assert len({call.id for call in choice.calls}) == len(choice.calls)
        assert not choice.calls or choice.reason in ("tool_calls", "length", "content_filter")
    counts = plain["counts"]
    if counts and counts.get("completion_tokens") is not None:
        usage = finish.usage
        assert isinstance(usage, Usage)
        assert usage.prompt_tokens == counts["prompt_tokens"]
        assert usage.completion_tokens >= counts["completion_tokens"]
    else:
        assert finish.usage is None


@cases(kind="-stream")
def test_a_recorded_stream_is_what_a_plain_reader_finds(case: Recording) -> None:
    """Text, reasoning, calls with their arguments, and counts."""
    if case.name.startswith("snowflake") or not listed(case, NO_FINISH):
        compare(case)


@reads_whole()
def test_a_recorded_whole_answer_is_what_a_plain_reader_finds(case: Recording) -> None:
    """Text, reasoning, calls with their arguments, and counts."""
    compare(case)
