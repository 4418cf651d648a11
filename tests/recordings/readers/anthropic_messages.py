"""Anthropic's Messages, put together by Anthropic's own client."""

from __future__ import annotations

import json
import re
from typing import Any

import anthropic
import httpx2

from tests.recordings.extract import CALLS, FILTER, LENGTH, STOP, Extract, Tokens

WORDS = {
    "end_turn": STOP,
    "stop_sequence": STOP,
    "pause_turn": STOP,
    "max_tokens": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "tool_use": CALLS,
    "refusal": FILTER,
}


def read(body: bytes, *, stream: bool) -> Extract:
    """Let the client read the answer: message by message, where one stream holds several."""
    extract = Extract()
    *answered, last = (_messages(body) if stream else None) or [body]
    for message in answered:  # the next one has the results of what a program called
        _read(message, extract, stream=stream, answered=True)
    _read(last, extract, stream=stream)
    return extract


def _read(body: bytes, extract: Extract, *, stream: bool, answered: bool = False) -> None:
    kind = "text/event-stream" if stream else "application/json"
    content = _named(body) if stream else body

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": kind}, content=content)

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = anthropic.Anthropic(
        api_key="none", base_url="http://recorded", http_client=transport, max_retries=0
    )
    asked: dict[str, Any] = {
        "model": "m",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "-"}],
    }
    snapshot: Any = None
    try:
        if stream:
            with client.beta.messages.stream(**asked) as events:
                for _ in events:
                    snapshot = events.current_message_snapshot
        else:
            snapshot = client.beta.messages.create(**asked)
    except anthropic.APIError as error:
        extract.error = _message(error)
    if snapshot is not None:
        take(extract, snapshot.to_dict(mode="json", warnings=False), answered=answered)


def _messages(body: bytes) -> list[bytes]:
    """Cut a stream after the line of each ``message_stop``."""
    found = re.split(rb'(?<="type":"message_stop")([^\n]*\n+)', body)
    parts = [b"".join(found[place : place + 2]) for place in range(0, len(found), 2)]
    return [part for part in parts if part.strip()]


def _named(body: bytes) -> bytes:
    """Name each event after its payload's type: recordings of payloads only have lost it."""
    if b"event:" in body:
        return body
    lines = []
    for line in body.split(b"\n"):
        if line.startswith(b"data:"):
            kind = json.loads(line[5:])["type"]
            lines.append(b"event: " + kind.encode())
        lines.append(line)
    return b"\n".join(lines)


def _message(error: anthropic.APIError) -> str:
    inner = error.body.get("error") if isinstance(error.body, dict) else None
    return inner["message"] if isinstance(inner, dict) else error.message


def _of_a_program(block: dict[str, Any]) -> bool:
    return bool((block.get("caller") or {}).get("type", "direct") != "direct")


def take(extract: Extract, message: dict[str, Any], *, answered: bool = False) -> None:
    """Read a message that is as whole as it got."""
    said = extract.choice()
    for block in message["content"]:
        match block["type"]:
            case "text":
                said.text += block["text"]
            case "thinking":
                said.reasoning.append(block["thinking"])
                said.signatures.append((block["signature"],))
            case "redacted_thinking":
                said.signatures.append((block["data"],))
            case "tool_use" if not (answered and _of_a_program(block)):
                said.calls.append((block["name"], block["input"]))
            case _:
                pass
    said.end(WORDS, message.get("stop_reason"))
    given = message["usage"]
    cached = given.get("cache_read_input_tokens")
    written = given.get("cache_creation_input_tokens")
    prompt = given["input_tokens"] + (cached or 0) + (written or 0)
    thought = (given.get("output_tokens_details") or {}).get("thinking_tokens")
    extract.usage = Tokens(prompt, given["output_tokens"], cached, written, thought)
