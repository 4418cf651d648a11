"""Recorded answers of Cohere, TGI and Ollama are read, wherever the network cut them.

What is expected is read out of the recording by a reader of its own, which shares nothing with
the codecs. Without the recordings beside the checkout these tests skip.
"""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backends.collect import Collector
from backends.errors import (
    BackendError,
    ContextLengthExceeded,
    ProtocolError,
    StreamTruncated,
)
from backends.types import Finish, ResponseStart, StreamEvent
from backends.wire.cohere_stream import CohereDecoder
from backends.wire.decoder import AnswerDecoder
from backends.wire.failure import refusal
from backends.wire.ollama_stream import OllamaDecoder
from backends.wire.tgi_stream import TGIDecoder
from tests.wire.test_sse import split

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
DECODERS = {"cohere-v2": CohereDecoder, "tgi-native": TGIDecoder, "ollama-native": OllamaDecoder}
NO_GENERATION = "tgi-native/text--tapes--6891e90a"
"""A fill-mask model's answer: five guesses at one word, and no text that goes on."""


class Recording(NamedTuple):
    """One recorded answer."""

    name: str
    status: int
    kind: str
    body: bytes

    @property
    def decoder(self) -> AnswerDecoder:
        """A new decoder of its wire."""
        return DECODERS[self.name.split("/")[0]](new_id=lambda: "call_new")


class Said(NamedTuple):
    """What an answer says."""

    text: str
    reasoning: str
    calls: list[tuple[str, Any]]
    reason: str | None
    counts: tuple[int, int] | None


@functools.cache
def recordings() -> tuple[Recording, ...]:
    """Return every recording of the three wires; streams with their framing restored."""
    found = []
    for provider in DECODERS:
        for folder in sorted(ROOT.glob(f"{provider}/*")):
            meta = json.loads((folder / "meta.json").read_text())
            head = json.loads((folder / "response.headers.json").read_text())
            body = (folder / "response.body").read_bytes()
            if meta["framing"] == "payload-lines":
                lines = (line for line in body.splitlines() if line)
                body = b"".join(b"data: " + line + b"\n\n" for line in lines)
            name = f"{provider}/{folder.name}"
            found.append(Recording(name, head["status"], meta["kind"], body))
    return tuple(found)


def cases(*, failed: bool) -> Any:
    """Parametrize over answers or errors, or skip with the reason."""
    chosen = [r for r in recordings() if ("error" in r.kind) is failed]
    if not chosen:
        reason = "the recordings are not beside this checkout (../shared/recordings)"
        return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason))])
    return pytest.mark.parametrize("case", [pytest.param(r, id=r.name) for r in chosen])


def play(case: Recording, reads: list[bytes]) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode a body that arrives in these reads."""
    decoder = case.decoder
    events: list[StreamEvent] = []
    for read in reads:
        events += decoder.feed(read)
        if decoder.done or decoder.failure:
            return events, decoder.failure
    events += decoder.end()
    return events, decoder.failure


def documents(body: bytes) -> list[Any]:
    """Return the JSON documents of a body, read in the plainest way."""
    try:
        whole = json.loads(body)
    except ValueError:
        lines = [line.strip().removeprefix(b"data:").strip() for line in body.splitlines()]
        return [json.loads(line) for line in lines if line.startswith(b"{")]
    return whole if isinstance(whole, list) else [whole]


def expected(case: Recording) -> Said:
    """Read what a recording says."""
    found = documents(case.body)
    reader = {"cohere-v2": of_cohere, "tgi-native": of_tgi, "ollama-native": of_ollama}
    return reader[case.name.split("/")[0]](found)


def of_cohere(found: list[Any]) -> Said:
    """Read Cohere's, streamed or whole."""
    text = reasoning = ""
    calls: dict[int, list[str]] = {}
    last: dict[str, Any] = found[-1].get("delta") or found[-1]
    for document in found:
        message = (document.get("delta") or document).get("message") or {}
        content = message.get("content") or []
        for part in content if isinstance(content, list) else [content]:
            text += part.get("text", "")
            reasoning += part.get("thinking", "")
        reasoning += message.get("tool_plan", "")
        given = message.get("tool_calls") or []
        for position, call in enumerate(given if isinstance(given, list) else [given]):
            place = document.get("index", position)
            pieces = calls.setdefault(place, [])
            pieces += [call["function"].get("name", ""), call["function"].get("arguments", "")]
    tokens = last["usage"]["tokens"]
    return Said(
        text,
        reasoning,
        [(one[0], json.loads("".join(one[1:]) or "{}")) for one in calls.values()],
        last["finish_reason"],
        (tokens["input_tokens"], tokens["output_tokens"]),
    )


def of_tgi(found: list[Any]) -> Said:
    """Read TGI's; no recording has both counts."""
    tokens = [document["token"] for document in found if "token" in document]
    text = "".join(token["text"] for token in tokens if not token["special"])
    reason = (found[-1].get("details") or {}).get("finish_reason")
    return Said(text if tokens else found[0]["generated_text"], "", [], reason, None)


def of_ollama(found: list[Any]) -> Said:
    """Read Ollama's, of ``/api/chat`` and ``/api/generate``."""
    messages = [document.get("message") or {} for document in found]
    text = "".join(message.get("content", "") for message in messages)
    text += "".join(document.get("response", "") for document in found)
    functions = [c["function"] for message in messages for c in message.get("tool_calls") or ()]
    last = found[-1]
    counts = (last.get("prompt_eval_count"), last.get("eval_count"))
    return Said(
        text,
        "".join(message.get("thinking", "") for message in messages),
        [(function["name"], function["arguments"]) for function in functions],
        last["done_reason"],
        None if None in counts else counts,
    )


@cases(failed=False)
def test_a_recorded_answer_says_what_it_said(case: Recording) -> None:
    """Text, reasoning, calls, the upstream's word for its end, and its counts."""
    events, failure = play(case, [case.body])
    if case.name.startswith(NO_GENERATION):
        assert isinstance(failure, ProtocolError)
        return
    assert failure is None
    assert isinstance(events[0], ResponseStart)
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert [type(event) for event in events].count(Finish) == 1
    assert finish.dropped_events == 0
    collector = Collector()
    collector.add(events)
    [one] = collector.answer().choices
    want = expected(case)
    assert one.text == want.text
    assert one.reasoning == want.reasoning
    assert [(call.name, json.loads(call.arguments)) for call in one.calls] == want.calls
    assert want.reason in (one.raw_reason, None)
    if want.calls:
        assert one.reason == "tool_calls"
    assert len({call.id for call in one.calls} - {""}) == len(one.calls)
    usage = finish.usage
    got = None if usage is None else (usage.prompt_tokens, usage.completion_tokens)
    assert got == want.counts


@cases(failed=False)
def test_where_a_recorded_answer_is_cut_into_reads_changes_nothing(case: Recording) -> None:
    """The same events from any reads, down to single bytes, also inside a character."""
    whole = play(case, [case.body])
    rng = random.Random(case.name)
    for pieces in (1, 3, 64, min(len(case.body), 3000)):
        cuts = [rng.randrange(len(case.body)) for _ in range(pieces)]
        events, failure = play(case, split(case.body, cuts))
        assert events == whole[0]
        assert type(failure) is type(whole[1])


@cases(failed=False)
def test_a_recorded_answer_that_breaks_off_never_looks_complete(case: Recording) -> None:
    """Cut anywhere before its last event, it is truncated."""
    last = max(case.body.rfind(b'"finish_reason"'), case.body.rfind(b'"done":true'))
    if last < 0 or case.name.startswith(NO_GENERATION):
        last = case.body.rstrip().rfind(b"\n") + 1 or len(case.body) - 2
    rng = random.Random(case.name)
    for _ in range(8):
        _, failure = play(case, [case.body[: rng.randrange(last)]])
        assert isinstance(failure, StreamTruncated), case.name


@cases(failed=True)
def test_a_recorded_error_keeps_its_words(case: Recording) -> None:
    """Of a status, and inside an accepted stream; a text that is too long is known as one."""
    if case.status == 200:
        _, error = play(case, [case.body])
    else:
        error = refusal(case.status, "Said", {}, case.body)
    assert error is not None
    document = documents(case.body)[0]
    assert error.message == str(document.get("message") or document.get("error"))
    long = "too many tokens" in error.message or "max_new_tokens` must be" in error.message
    assert isinstance(error, ContextLengthExceeded) is long
