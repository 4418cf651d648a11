"""Recorded answers of Gemini and Vertex AI are read as Google's own SDK reads them.

The recordings lie beside the checkout and are no part of it; without them these tests skip.
"""

from __future__ import annotations

import functools
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backends.collect import Choice
from backends.errors import (
    BackendError,
    ContentFiltered,
    EndpointRejected,
    ProtocolError,
    RateLimited,
    StreamTruncated,
)
from backends.types import CONTENT, Finish, ResponseStart
from backends.wire.failure import refusal
from tests.recordings.cases import ROOT
from tests.wire.test_gemini_stream import collected, play
from tests.wire.test_sse import split

BLOCKED = "streaming-failure-prompt-blocked-safety"
BROKEN = "streaming-failure-error-mid-stream"


class Recording(NamedTuple):
    """One recorded answer."""

    name: str
    meta: dict[str, Any]
    body: bytes


@functools.cache
def recordings() -> tuple[Recording, ...]:
    """Return every recording of the wire; streams with their framing restored."""
    found = []
    for folder in sorted([*ROOT.glob("google-gemini/*"), *ROOT.glob("vertex-gemini/*")]):
        meta = json.loads((folder / "meta.json").read_text())
        body = (folder / "response.body").read_bytes()
        if meta["framing"] == "payload-lines":
            lines = (line for line in body.splitlines() if line.strip())
            body = b"".join(b"data: " + line + b"\r\n\r\n" for line in lines)
        found.append(Recording(f"{folder.parent.name}/{folder.name}", meta, body))
    return tuple(found)


def cases(*, errors: bool = False) -> Any:
    """Parametrize over recordings, or skip with the reason."""
    chosen = [r for r in recordings() if (r.meta["kind"] == "error") is errors]
    if not chosen:
        reason = "the recordings are not beside this checkout (../shared/recordings)"
        return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason))])
    return pytest.mark.parametrize("case", [pytest.param(r, id=r.name) for r in chosen])


def documents(case: Recording) -> list[dict[str, Any]]:
    """Return the chunks of an answer, read in the plainest way."""
    if b"data:" in case.body[:10]:
        lines = case.body.splitlines()
        return [json.loads(line[5:]) for line in lines if line.startswith(b"data:")]
    whole = json.loads(case.body)
    return whole if isinstance(whole, list) else [whole]


def spoken(case: Recording) -> dict[str, Any]:
    """Return what the first candidate says, by the SDK's types."""
    types = pytest.importorskip("google.genai.types")
    said: dict[str, Any] = defaultdict(str, calls=[], signatures=0, images=0, finish=None)
    for document in documents(case):
        plain = json.loads(json.dumps(document))
        for candidate in plain.get("candidates", ()):
            if isinstance(candidate.get("finishReason"), int):
                candidate["finishReason"] = ["", "STOP", "MAX_TOKENS"][candidate["finishReason"]]
            candidate.pop("safetyRatings", None)  # one recording has some that are not valid
        for name in ("promptFeedback", "usageMetadata"):
            plain.pop(name, None)
        for candidate in types.GenerateContentResponse.model_validate(plain).candidates or ():
            for part in (candidate.content and candidate.content.parts) or ():
                said["thought" if part.thought else "text"] += part.text or ""
                said["signatures"] += bool(
                    part.thought_signature
                    and not (part.executable_code or part.code_execution_result)
                )
                said["images"] += part.inline_data is not None
                if part.function_call and part.function_call.name:
                    said["calls"].append(part.function_call)
            said["finish"] = (
                candidate.finish_reason.value if candidate.finish_reason else said["finish"]
            )
    return said


@cases()
def test_a_recorded_answer_is_complete_and_as_the_sdk_reads_it(case: Recording) -> None:
    """Text, thoughts, calls, signatures, images and the end; known failures fail as they should."""
    events, failure = play(case.body)
    if BLOCKED in case.name:
        assert isinstance(failure, ContentFiltered)
        assert failure.message == "Reasons"
        return
    if BROKEN in case.name:
        assert failure is not None
        assert not isinstance(failure, StreamTruncated | ProtocolError | EndpointRejected)
        assert failure.message in case.body.decode()
        return
    assert failure is None
    assert isinstance(events[0], ResponseStart)
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.dropped_events == 0
    [choice] = collected(events).choices
    said = spoken(case)
    assert (choice.text, choice.reasoning) == (said["text"], said["thought"])
    assert len(choice.images) == said["images"]
    assert choice.raw_reason == said["finish"]
    check_calls(choice, said["calls"])
    signed = [d for d in choice.details if d["type"] == "reasoning.encrypted" or "signature" in d]
    assert len(signed) == said["signatures"]


def check_calls(choice: Choice, calls: list[Any]) -> None:
    """Check names, ids and arguments; streamed arguments only for being an object."""
    assert [one.name for one in choice.calls] == [one.name for one in calls]
    for ours, theirs in zip(choice.calls, calls, strict=True):
        arguments = json.loads(ours.arguments)
        assert isinstance(arguments, dict)
        if not theirs.will_continue:
            assert arguments == (theirs.args or {})
        assert ours.id == theirs.id if theirs.id else ours.id
    assert not calls or choice.reason == "tool_calls"


@cases()
def test_recorded_usage_adds_up(case: Recording) -> None:
    """Prompt and completion are all that Google counts, and the last report is the answer's."""
    events, failure = play(case.body)
    reports = [d["usageMetadata"] for d in documents(case) if "usageMetadata" in d]
    if failure is not None or not reports or "promptTokenCount" not in reports[-1]:
        return
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.usage is not None
    assert (
        finish.usage.prompt_tokens + finish.usage.completion_tokens
        == (reports[-1]["totalTokenCount"])
    )
    assert finish.usage.reasoning_tokens == reports[-1].get("thoughtsTokenCount")
    assert finish.usage.cached_tokens == reports[-1].get("cachedContentTokenCount")


@cases()
def test_where_a_recorded_answer_is_cut_into_reads_changes_nothing(case: Recording) -> None:
    """The same events from any reads, down to a few bytes, also inside a character."""
    whole = play(case.body)
    rng = random.Random(case.name)
    for pieces in (1, 3, 40, min(len(case.body), 3000)):
        cuts = [rng.randrange(len(case.body)) for _ in range(pieces)]
        events, failure = play(*split(case.body, cuts))
        assert events == whole[0]
        assert type(failure) is type(whole[1])


@cases()
def test_a_recorded_answer_that_breaks_off_never_looks_complete(case: Recording) -> None:
    """Cut before the first finish reason, it is truncated and says nothing that was not said."""
    end = case.body.find(b'"finishReason"')
    if end < 0:
        assert BLOCKED in case.name
        return
    whole, _ = play(case.body)
    rng = random.Random(case.name)
    for _ in range(5):
        events, failure = play(case.body[: rng.randrange(end)])
        assert isinstance(failure, StreamTruncated)
        said = [event for event in events if isinstance(event, CONTENT)]
        assert said == [event for event in whole if isinstance(event, CONTENT)][: len(said)]


@cases(errors=True)
def test_a_recorded_refusal_is_the_error_that_it_stands_for(case: Recording) -> None:
    """With Google's words, its status, and the delay in the body."""
    head = json.loads((Path(ROOT) / case.name / "response.headers.json").read_text())
    error: BackendError = refusal(head["status"], "", {}, case.body)
    document = json.loads(case.body)
    inner = (document[0] if isinstance(document, list) else document)["error"]
    assert error.message == inner["message"]
    assert error.upstream_status == head["status"]
    assert type(error) is {429: RateLimited}.get(head["status"], EndpointRejected)
    assert (error.retry_after_s is not None) is (b"retryDelay" in case.body)
