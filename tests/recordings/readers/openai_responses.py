"""OpenAI's Responses: the full answer stands in the last event, and is read from there."""

from __future__ import annotations

from typing import Any

from tests.recordings.extract import FILTER, LENGTH, Extract, Tokens, parsed
from tests.recordings.readers.openai_sdk import client, events

WORDS = {"max_output_tokens": LENGTH, "max_tokens": LENGTH, "content_filter": FILTER}
LAST = ("response.completed", "response.incomplete", "response.failed")


def read(body: bytes, *, stream: bool) -> Extract:
    """Read the last event's response; items that it leaves out, from when they were done."""
    extract = Extract()
    create = client(body, stream=stream).responses.create
    items: dict[int, dict[str, Any]] = {}
    response: dict[str, Any] | None = None

    def ask() -> Any:
        return create(model="m", input="", stream=stream)

    for event in events(ask, extract, stream=stream):
        if not stream:
            response = event
        elif event["type"] == "error":
            extract.error = (event.get("error") or event)["message"]
            break
        elif event["type"] == "response.output_item.done":
            items[event["output_index"]] = event["item"]
        elif event["type"] in LAST:
            response = event["response"]
            break
    output = (response or {}).get("output") or [items[place] for place in sorted(items)]
    told = {item["id"]: item for item in items.values() if item.get("id")}
    for item in output:
        take(extract, item, told.get(item.get("id"), {}))
    if response:
        end(extract, response)
    return extract


def take(extract: Extract, item: dict[str, Any], before: dict[str, Any]) -> None:
    """Add one item; of what the server's own tools did, images alone are for the client.

    What is encrypted is so anew in each event: either telling of it serves.
    """
    said = extract.choice()
    match item["type"]:
        case "message":
            for part in item["content"]:
                said.text += part.get("text") or ""
                said.refusal += part.get("refusal") or ""
        case "reasoning":
            parts = [*(item.get("summary") or ()), *(item.get("content") or ())]
            said.reasoning += [part["text"] for part in parts]
            sealed = [telling.get("encrypted_content") for telling in (item, before)]
            if sealed[0]:
                said.signatures.append(tuple(filter(None, sealed)))
        case "function_call":
            said.calls.append((item["name"], parsed(item["arguments"])))
        case "custom_tool_call":
            said.calls.append((item["name"], item["input"]))
        case "image_generation_call":
            said.images += bool(item.get("result"))
        case _:
            pass


def end(extract: Extract, response: dict[str, Any]) -> None:
    """Take status and usage."""
    status = response.get("status")
    if status == "failed":
        extract.error = (response.get("error") or {}).get("message") or ""
        return
    why = (response.get("incomplete_details") or {}).get("reason")
    if status == "incomplete":
        extract.choice().end(WORDS, why)
    elif status == "completed":
        extract.choice().end({}, status)
    given = response.get("usage")
    if given:
        extract.usage = Tokens(
            given["input_tokens"],
            given["output_tokens"],
            cached=(given.get("input_tokens_details") or {}).get("cached_tokens"),
            cache_write=(given.get("input_tokens_details") or {}).get("cache_write_tokens"),
            reasoning=(given.get("output_tokens_details") or {}).get("reasoning_tokens"),
        )
