"""Bedrock's Converse and ConverseStream, by boto3."""

from __future__ import annotations

import base64
from typing import Any

from botocore.exceptions import EventStreamError

from tests.recordings.extract import CALLS, FILTER, LENGTH, STOP, Extract, Said, Tokens, parsed
from tests.recordings.readers.aws import client

WORDS = {
    "end_turn": STOP,
    "stop_sequence": STOP,
    "tool_use": CALLS,
    "max_tokens": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "guardrail_intervened": FILTER,
    "content_filtered": FILTER,
}
SERVER_TOOL = "server_tool_use"


def read(body: bytes, *, stream: bool) -> Extract:
    """Read an answer whole or event by event."""
    extract = Extract()
    asked: dict[str, Any] = {"modelId": "m", "messages": []}
    if stream:
        take_events(extract, client(body, stream=True).converse_stream(**asked)["stream"])
        return extract
    answer = client(body, stream=False).converse(**asked)
    for block in answer["output"]["message"]["content"]:
        take_block(extract, block)
    extract.choice().end(WORDS, answer["stopReason"])
    count(extract, answer.get("usage"))
    return extract


def take_block(extract: Extract, block: dict[str, Any]) -> None:
    """Add one block of a whole answer."""
    said = extract.choice()
    said.text += block.get("text", "")
    if "citationsContent" in block:
        said.text += "".join(part["text"] for part in block["citationsContent"]["content"])
    thought = block.get("reasoningContent", {})
    if "reasoningText" in thought:
        said.reasoning.append(thought["reasoningText"]["text"])
    sign(said, {**thought, **thought.get("reasoningText", {})})
    call = block.get("toolUse")
    if call and call.get("type") != SERVER_TOOL:
        said.calls.append((call["name"], call["input"]))


def sign(said: Said, thought: dict[str, Any]) -> None:
    """Keep what the model wants back; hidden bytes may be written in base64 or as they are."""
    if thought.get("signature"):
        said.signatures.append((thought["signature"],))
    hidden = thought.get("redactedContent")
    if hidden:
        said.signatures.append((base64.b64encode(hidden).decode(), hidden.decode("latin-1")))


def take_events(extract: Extract, events: Any) -> None:
    """Add the events of a stream, until one is an error."""
    said = extract.choice()
    calls: dict[int, list[str]] = {}
    thoughts: dict[int, str] = {}
    raw: str | None = None
    try:
        for event in events:
            name, value = next(iter(event.items()))
            place = value.get("contentBlockIndex", 0)
            if name == "contentBlockStart":
                call = value["start"].get("toolUse")
                if call and call.get("type") != SERVER_TOOL:
                    calls[place] = [call["name"], ""]
            elif name == "contentBlockDelta":
                delta = value["delta"]
                said.text += delta.get("text", "")
                if place in calls:
                    calls[place][1] += delta.get("toolUse", {}).get("input", "")
                thought = delta.get("reasoningContent", {})
                thoughts[place] = thoughts.get(place, "") + thought.get("text", "")
                sign(said, thought)
            elif name == "messageStop":
                raw = value["stopReason"]
            elif name == "metadata":
                count(extract, value.get("usage"))
    except EventStreamError as error:
        extract.error = error.response["Error"]["Message"]
    said.reasoning = [thought for thought in thoughts.values() if thought]
    said.calls = [(name, parsed(pieces)) for name, pieces in calls.values()]
    said.end(WORDS, raw)


def count(extract: Extract, given: dict[str, Any] | None) -> None:
    """Take usage; what was cached is not in ``inputTokens``."""
    if not given:
        return
    cached, written = given.get("cacheReadInputTokens"), given.get("cacheWriteInputTokens")
    prompt = given["inputTokens"] + (cached or 0) + (written or 0)
    extract.usage = Tokens(prompt, given["outputTokens"], cached, written)
