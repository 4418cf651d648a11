"""OpenAI's Chat Completions, and all that call themselves compatible with it."""

from __future__ import annotations

from typing import Any

from tests.recordings.extract import (
    CALLS,
    FILTER,
    LENGTH,
    STOP,
    Extract,
    Said,
    Tokens,
    parsed,
    tokens,
)
from tests.recordings.readers.openai_sdk import client, events

WORDS = {
    "stop": STOP,
    "length": LENGTH,
    "max_tokens": LENGTH,
    "tool_calls": CALLS,
    "function_call": CALLS,
    "content_filter": FILTER,
    "error": "error",
}

CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
"""Where DeepSeek, Together and Moonshot, and Databricks say what OpenAI says in the details."""


def read(body: bytes, *, stream: bool) -> Extract:
    """Put chunks, or a whole answer, together."""
    extract = Extract()
    calls: dict[int, dict[int, dict[str, str]]] = {}
    ends: dict[int, str] = {}
    create = client(body, stream=stream).chat.completions.create

    def ask() -> Any:
        return create(model="m", messages=[{"role": "user", "content": ""}], stream=stream)

    for chunk in events(ask, extract, stream=stream):
        if chunk.get("error"):
            error = chunk["error"]
            extract.error = error["message"] if isinstance(error, dict) else error
            break
        extract.usage = usage(chunk.get("usage") or of_groq(chunk)) or extract.usage
        for choice in chunk.get("choices") or ():
            index = choice.get("index") or 0
            said = extract.choice(index)
            message = choice.get("delta" if stream else "message") or {}
            speak(said, message)
            take_calls(calls.setdefault(index, {}), message)
            reason = choice.get("finish_reason") or (choice.get("finish_details") or {}).get("type")
            if reason:
                ends[index] = reason
                said.native = choice.get("native_finish_reason")
    for index, said in extract.choices.items():
        said.calls = [
            (call["name"], parsed(call["arguments"])) for call in calls.get(index, {}).values()
        ]
        said.end(WORDS, ends.get(index))
        said.raw = said.native or said.raw
    return extract


def speak(said: Said, message: dict[str, Any]) -> None:
    """Add text, reasoning and refusal under the names that vendors give them."""
    content = message.get("content")
    if isinstance(content, str):
        said.text += content
    elif isinstance(content, dict):
        said.document = content
    for part in content if isinstance(content, list) else ():
        if part["type"] == "text":
            said.text += part["text"]
        elif part["type"] == "thinking":
            said.reasoning += [piece["text"] for piece in part["thinking"]]
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str):
        said.reasoning.append(thought)
    elif not thought:
        for detail in message.get("reasoning_details") or ():
            said.reasoning.append(detail.get("text") or detail.get("summary") or "")
    for detail in message.get("reasoning_details") or ():
        said.signatures += [(detail[key],) for key in ("signature", "data") if detail.get(key)]
    said.refusal += message.get("refusal") or ""


def take_calls(calls: dict[int, dict[str, str]], message: dict[str, Any]) -> None:
    """Add pieces of calls; where none has an index, each is a call of its own."""
    pieces = list(message.get("tool_calls") or ())
    if any((message.get("function_call") or {}).values()):
        pieces = [{"index": 0, "function": message["function_call"]}]
    for position, piece in enumerate(pieces):
        place = piece.get("index")
        function = piece.get("function") or {}
        call = calls.setdefault(position if place is None else place, {"name": "", "arguments": ""})
        call["name"] = call["name"] or function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""


def of_groq(chunk: dict[str, Any]) -> Any:
    """Groq's streams report usage in a field of its own."""
    return (chunk.get("x_groq") or {}).get("usage")


def usage(given: Any) -> Tokens | None:
    """Read a usage object.

    Where the total says that reasoning came on top (xAI), or it is more than the whole completion
    (Vercel's gateway for Google), it is added to the completion.
    """
    if not given:
        return None
    prompt, completion = given.get("prompt_tokens"), given.get("completion_tokens")
    if prompt is None or completion is None:
        return tokens(prompt, completion)
    of_prompt = given.get("prompt_tokens_details") or {}
    of_completion = given.get("completion_tokens_details") or {}
    counted = Tokens(prompt, completion)
    counted.cached = first((of_prompt, "cached_tokens"), *((given, name) for name in CACHED))
    counted.cache_write = first(
        (of_prompt, "cache_write_tokens"), (given, "cache_creation_input_tokens")
    )
    counted.reasoning = of_completion.get("reasoning_tokens")
    thought = counted.reasoning or 0
    apart = given.get("total_tokens") == prompt + completion + thought
    if apart or thought > completion:
        counted.completion = completion + thought
    return counted


def first(*places: tuple[dict[str, Any], str]) -> int | None:
    """Return the first count that is given."""
    found = (group[name] for group, name in places if group.get(name) is not None)
    return next(found, None)
