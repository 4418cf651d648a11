"""Google's generateContent, as server-sent events or as one JSON array, by google-genai's types."""

from __future__ import annotations

import base64
import itertools
import json
import re
from typing import Any

from google.genai import types

from tests.recordings.extract import FILTER, LENGTH, STOP, Extract, Tokens

BLOCKED = (
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "MODEL_ARMOR", "LANGUAGE", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
)  # fmt: skip
WORDS = {
    "STOP": STOP,
    "MAX_TOKENS": LENGTH,
    "MALFORMED_FUNCTION_CALL": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    **dict.fromkeys(BLOCKED, FILTER),
}
BY_NUMBER = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
"""FinishReason in the wire's enum (google/ai/generativelanguage, read 2026-11)."""

READ = {"candidates", "usageMetadata", "promptFeedback"}


def read(body: bytes, *, stream: bool) -> Extract:
    """Add chunk to chunk."""
    extract = Extract()
    calls: dict[int, list[dict[str, Any]]] = {}
    for document in documents(body) if stream else [json.loads(body)]:
        if "error" in document:
            extract.error = document["error"]["message"]
            break
        chunk = typed(document)
        feedback = chunk.prompt_feedback
        if feedback and feedback.block_reason and not chunk.candidates:
            extract.error = feedback.block_reason_message or feedback.block_reason.value
            break
        for candidate in chunk.candidates or ():
            index = candidate.index or 0
            said = extract.choice(index)
            for part in (candidate.content and candidate.content.parts) or ():
                take(extract, index, part, calls.setdefault(index, []))
            if candidate.finish_reason:
                said.raw = candidate.finish_reason.value
        count(extract, chunk.usage_metadata)
    for index, said in extract.choices.items():
        said.calls = [(call["name"], call["args"]) for call in calls.get(index, ())]
        said.end(WORDS, said.raw)
    return extract


def documents(body: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a stream, and an error that was written bare between them."""
    text = body.decode()
    if text.lstrip().startswith("["):
        array: list[dict[str, Any]] = json.loads(text)
        return array
    found = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("data:")).strip()
    return [*found, json.loads(bare)] if bare else found


def typed(document: dict[str, Any]) -> types.GenerateContentResponse:
    """Make the client's own type of what is read here; enums may have come as numbers."""
    document = {name: document[name] for name in READ & document.keys()}
    kept = ("index", "content", "finishReason")
    candidates = []
    for candidate in document.get("candidates") or ():
        candidate = {name: candidate[name] for name in kept if name in candidate}
        if isinstance(candidate.get("finishReason"), int):
            candidate["finishReason"] = BY_NUMBER[candidate["finishReason"]]
        candidates.append(candidate)
    usage = {
        name: value
        for name, value in (document.get("usageMetadata") or {}).items()
        if name.endswith("Count")
    }
    feedback = {
        name: value
        for name, value in (document.get("promptFeedback") or {}).items()
        if name.startswith("blockReason")
    }
    return types.GenerateContentResponse.model_validate(
        {"candidates": candidates, "usageMetadata": usage, "promptFeedback": feedback}
    )


def take(extract: Extract, index: int, part: types.Part, calls: list[dict[str, Any]]) -> None:
    """Add one part; code that the server ran is its own business."""
    said = extract.choice(index)
    if part.executable_code or part.code_execution_result:
        return
    if part.thought_signature:
        said.signatures.append((base64.b64encode(part.thought_signature).decode(),))
    if part.inline_data and not part.thought:
        said.images += 1
    if part.text and part.thought:
        said.reasoning.append(part.text)
    elif part.text:
        said.text += part.text
    call = part.function_call
    if call is None:
        return
    if call.name:
        calls.append({"name": call.name, "args": dict(call.args or {})})
    for piece in call.partial_args or ():
        put(calls[-1]["args"], piece)


def put(arguments: dict[str, Any], piece: types.PartialArg) -> None:
    """Set, or for strings extend, the value at a JSON path."""
    path = [
        int(number) if number else name
        for name, number in re.findall(r"\.?([^.\[\]$]+)|\[(\d+)\]", piece.json_path or "")
    ]
    place: Any = arguments
    for key, then in itertools.pairwise(path):
        empty: Any = [] if isinstance(then, int) else {}
        if isinstance(place, list):
            while len(place) <= key:
                place.append(None)
            place[key] = place[key] or empty
        else:
            place.setdefault(key, empty)
        place = place[key]
    value: Any = None
    for given in (piece.string_value, piece.number_value, piece.bool_value):
        value = given if given is not None else value
    last = path[-1]
    if isinstance(place, list):
        while len(place) <= last:
            place.append(None)
    before = place[last] if isinstance(place, list) else place.get(last)
    place[last] = before + value if isinstance(value, str) and isinstance(before, str) else value


def count(extract: Extract, given: types.GenerateContentResponseUsageMetadata | None) -> None:
    """Take the newest counts: prompt with what tools added, output with thoughts."""
    if given is None:
        return
    output = (given.candidates_token_count or 0) + (given.thoughts_token_count or 0)
    if given.prompt_token_count is None:
        extract.usage = Tokens(None, output) if output else None
        return
    extract.usage = Tokens(
        given.prompt_token_count + (given.tool_use_prompt_token_count or 0),
        output,
        cached=given.cached_content_token_count,
        reasoning=given.thoughts_token_count,
    )
