"""Cohere's v2 chat, by Cohere's client."""

from __future__ import annotations

from typing import Any

import cohere
import httpx

from tests.recordings.extract import CALLS, FILTER, LENGTH, STOP, Extract, Tokens, parsed

WORDS = {
    "COMPLETE": STOP,
    "STOP_SEQUENCE": STOP,
    "MAX_TOKENS": LENGTH,
    "TOOL_CALL": CALLS,
    "ERROR_TOXIC": FILTER,
    "ERROR": "error",
    "ERROR_LIMIT": "error",
    "TIMEOUT": "error",
}


def read(body: bytes, *, stream: bool) -> Extract:
    """Read an answer whole or event by event."""
    extract = Extract()
    kind = "text/event-stream" if stream else "application/json"

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": kind}, content=body)

    transport = httpx.Client(transport=httpx.MockTransport(answer))
    client = cohere.ClientV2(api_key="none", httpx_client=transport, base_url="http://recorded")
    asked: dict[str, Any] = {"model": "m", "messages": []}
    if not stream:
        whole = client.chat(**asked).dict()
        take_message(extract, whole["message"])
        end(extract, whole.get("finish_reason"), whole.get("usage"))
        return extract
    said = extract.choice()
    calls: list[list[str]] = []
    for event in client.chat_stream(**asked):
        given = event.dict()
        delta = given.get("delta") or {}
        message = delta.get("message") or {}
        match given["type"]:
            case "content-start" | "content-delta":
                said.text += message["content"].get("text") or ""
                said.reasoning.append(message["content"].get("thinking") or "")
            case "tool-plan-delta":
                said.reasoning.append(message.get("tool_plan") or "")
            case "tool-call-start":
                function = message["tool_calls"]["function"]
                calls.append([function["name"], function.get("arguments") or ""])
            case "tool-call-delta":
                calls[-1][1] += message["tool_calls"]["function"]["arguments"]
            case "message-end":
                said.calls = [(name, parsed(pieces)) for name, pieces in calls]
                extract.error = delta.get("error")
                end(extract, delta.get("finish_reason"), delta.get("usage"))
            case _:
                pass
    return extract


def take_message(extract: Extract, message: dict[str, Any]) -> None:
    """Read a whole message; a plan before calls is reasoning."""
    said = extract.choice()
    for part in message.get("content") or ():
        said.text += part.get("text") or ""
        said.reasoning.append(part.get("thinking") or "")
    said.reasoning.append(message.get("tool_plan") or "")
    for call in message.get("tool_calls") or ():
        said.calls.append((call["function"]["name"], parsed(call["function"]["arguments"])))


def end(extract: Extract, raw: str | None, given: dict[str, Any] | None) -> None:
    """Take the end and the tokens that the model saw: what is billed leaves some out."""
    extract.choice().end(WORDS, raw)
    counts = (given or {}).get("tokens") or (given or {}).get("billed_units")
    if given and counts:
        extract.usage = Tokens(
            int(counts["input_tokens"]),
            int(counts["output_tokens"]),
            cached=_whole(given.get("cached_tokens")),
            reasoning=_whole(counts.get("reasoning_tokens")),
        )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
