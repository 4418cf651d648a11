"""Recorded exchanges of Anthropic's wire are read whole, and recorded requests lose nothing.

The recordings lie beside the checkout and are no part of it; without them these tests skip.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from backends.collect import ChatAnswer, Collector
from backends.errors import BackendError
from backends.types import Finish, StreamEvent
from backends.wire.checks import InvalidRequest
from backends.wire.failure import read_error
from backends.wire.messages_request import decode_request, encode_request
from backends.wire.messages_stream import MessagesDecoder
from tests.wire.test_sse import split

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
FOLDERS = ("anthropic-messages/*", "vertex-anthropic/*")

REFUSED = {
    "anthropic-messages/multimodal-input-stream--anthropic-file-lifecycle": "file stores",
    "anthropic-messages/reasoning-stream--anthropic-mcp-servers": "server tools",
    "anthropic-messages/server-tool": "server tools",
    "anthropic-messages/text-stream--anthropic-search-panel": "'server_tool_use'",
    "anthropic-messages/tool--anthropic-completion-tools-server-tool": "server tools",
    "anthropic-messages/tool-stream--anthropic-completion-beta-tools": "server tools",
}
"""Requests for what is not offered, and a word of the refusal."""

SERVERS = ("anthropic_version",)
"""What only the addresses of clouds want in a body."""


class Recording(NamedTuple):
    """One recorded exchange."""

    name: str
    kind: str
    request: dict[str, Any]
    body: bytes


@cache
def recordings() -> tuple[Recording, ...]:
    """Return every recording of the wire; streams with their framing restored."""
    found = []
    for folder in sorted(path for pattern in FOLDERS for path in ROOT.glob(pattern)):
        meta = json.loads((folder / "meta.json").read_text())
        body = (folder / "response.body").read_bytes()
        if meta["framing"] == "payload-lines":
            lines = (line for line in body.splitlines() if line)
            body = b"".join(b"data: " + line + b"\n\n" for line in lines)
        asked = folder / "request.json"
        request = json.loads(asked.read_text())["body"] if asked.exists() else None
        name = f"{folder.parent.name}/{folder.name}"
        found.append(Recording(name, meta["kind"], request or {}, body))
    return tuple(found)


def cases(*, errors: bool | None = None, requests: bool = False) -> Any:
    """Parametrize over recordings, or skip with the reason."""
    chosen = [
        case
        for case in recordings()
        if errors in (None, case.kind == "error") and (case.request or not requests)
    ]
    if not chosen:
        reason = "the recordings are not beside this checkout (../shared/recordings)"
        return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason))])
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in chosen])


def play(reads: list[bytes]) -> tuple[list[StreamEvent], BackendError | None]:
    """Decode a body that arrives in these reads."""
    decoder = MessagesDecoder(lambda: "made-up")
    events: list[StreamEvent] = []
    for read in reads:
        events += decoder.feed(read)
    events += decoder.end()
    return events, decoder.failure


def collected(events: list[StreamEvent]) -> ChatAnswer:
    """Put an answer together."""
    collector = Collector()
    collector.add(events)
    return collector.answer()


def blocks(body: bytes) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Read a body in the plainest way: its blocks, its last counts, and how it ended."""
    if body.lstrip().startswith(b"{"):
        message = json.loads(body)
        return message["content"], message["usage"], message
    found: list[dict[str, Any]] = []
    usage: dict[str, Any] = {}
    end: dict[str, Any] = {}
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        event = json.loads(line[5:])
        delta = event.get("delta") or {}
        match event["type"]:
            case "message_start":
                usage, end = dict(event["message"].get("usage") or {}), event["message"]
                found += event["message"]["content"]
            case "content_block_start":
                found.append(dict(event["content_block"]))
            case "content_block_delta":
                for name in ("text", "thinking", "signature", "partial_json"):
                    found[-1][name] = found[-1].get(name, "") + delta.get(name, "")
            case "message_delta":
                usage |= event["usage"]
                end = delta
    return found, usage, end


@cases(errors=False)
def test_a_recorded_answer_is_what_a_plain_reader_finds(case: Recording) -> None:
    """Text, reasoning with signatures, calls, finish and counts; server tools are no calls."""
    events, failure = play([case.body])
    if case.kind == "stream-error":
        assert failure is not None
        assert failure.message == "Overloaded"
        return
    assert failure is None
    finish = events[-1]
    assert isinstance(finish, Finish)
    answer = collected(events)
    found, usage, end = blocks(case.body)
    text = "".join(block["text"] for block in found if block["type"] == "text")
    calls = [
        (
            block["id"],
            block["name"],
            json.loads(block.get("partial_json") or "null") or block["input"],
        )
        for block in found
        if block["type"] == "tool_use"
    ]
    thoughts = [block for block in found if block["type"] == "thinking"]
    others = [b["type"] for b in found if b["type"] not in ("text", "tool_use", "thinking")]
    choice = answer.choices[0]
    assert choice.text == text
    assert [(c.id, c.name, json.loads(c.arguments)) for c in choice.calls] == calls
    assert choice.reasoning == "".join(block["thinking"] for block in thoughts)
    signed = [detail["signature"] for detail in choice.details if "signature" in detail]
    assert signed == [block["signature"] for block in thoughts]
    assert [block["type"] for block in (answer.extras or {}).get("blocks", ())] == others
    assert choice.raw_reason == end["stop_reason"]
    prompt = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert finish.usage is not None
    assert finish.usage.prompt_tokens == sum(usage.get(name) or 0 for name in prompt)
    assert finish.usage.completion_tokens == usage["output_tokens"]
    assert finish.usage.cached_tokens == usage.get("cache_read_input_tokens")
    assert finish.usage.cache_write_tokens == usage.get("cache_creation_input_tokens")


@cases(errors=False)
def test_where_a_recorded_answer_is_cut_into_reads_changes_nothing(case: Recording) -> None:
    """The same events from any reads, down to a few bytes, also inside a character."""
    whole = play([case.body])
    rng = random.Random(case.name)
    for pieces in (1, 3, 40, min(len(case.body), 3000)):
        cuts = [rng.randrange(len(case.body)) for _ in range(pieces)]
        events, failure = play(split(case.body, cuts))
        assert events == whole[0]
        assert type(failure) is type(whole[1])


@cases(errors=True)
def test_a_recorded_error_body_gives_its_words(case: Recording) -> None:
    """The vendor's own message."""
    assert read_error(case.body)[0] == json.loads(case.body)["error"]["message"]


@cases(requests=True)
def test_a_recorded_request_goes_on_with_nothing_lost(case: Recording) -> None:
    """Decoded and written again for its own wire; what is not offered is refused by name."""
    given = {name: value for name, value in case.request.items() if name not in SERVERS}
    given = {"model": "claude-x", **given}
    body = json.dumps(given).encode()
    words = next((w for start, w in REFUSED.items() if case.name.startswith(start)), None)
    if words is not None:
        with pytest.raises(InvalidRequest, match=words):
            decode_request(body)
        return
    request = decode_request(body).request
    request = msgspec.structs.replace(request, output_bound=request.max_tokens)
    expected = {"stream": True, **{k: v for k, v in given.items() if v != [] and k != "stream"}}
    if wanted := expected.pop("output_format", None):  # its name today
        expected["output_config"] = {"format": wanted}
    assert encode_request(request, model=given["model"]) == expected


@cases(requests=True)
def test_a_recorded_request_survives_its_canonical_form(case: Recording) -> None:
    """Read for any wire and written again for this one, it asks for the same."""
    given = {name: value for name, value in case.request.items() if name not in SERVERS}
    try:
        request = decode_request(json.dumps({"model": "claude-x", **given}).encode()).request
    except InvalidRequest:
        return  # the test before says which
    if any(name.startswith("messages.") for name in request.required):
        return  # only this wire can say it, as the client did
    request = msgspec.structs.replace(request, output_bound=request.max_tokens, native=None)
    again = encode_request(request, model="claude-x")
    other = decode_request(json.dumps(again).encode()).request
    assert (other.params, other.max_tokens, other.stop) == (
        request.params,
        request.max_tokens,
        request.stop,
    )
    assert text_of(other.messages) == text_of(request.messages)


def text_of(messages: Any) -> list[Any]:
    """Return what is said, turn by turn, however it is cut into parts."""
    said: list[Any] = []
    for message in messages:
        content = message.get("content") or ""
        parts = [content] if isinstance(content, str) else [p.get("text", p) for p in content]
        said.append((message["role"], [p for p in parts if p], message.get("tool_calls")))
    return said
