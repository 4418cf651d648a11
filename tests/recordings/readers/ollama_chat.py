"""Ollama's /api/chat, by the types of Ollama's client."""

from __future__ import annotations

import json

import ollama

from tests.recordings.extract import LENGTH, STOP, Extract, tokens

WORDS = {"stop": STOP, "length": LENGTH}


def read(body: bytes, *, stream: bool) -> Extract:
    """Add line to line; a whole answer is a stream of one."""
    extract = Extract()
    said = extract.choice()
    for line in body.splitlines() if stream else [body]:
        document = json.loads(line)
        if "error" in document:
            extract.error = document["error"]
            break
        chunk = ollama.ChatResponse(**document)
        said.text += chunk.message.content or ""
        said.reasoning.append(chunk.message.thinking or "")
        for call in chunk.message.tool_calls or ():
            said.calls.append((call.function.name, dict(call.function.arguments)))
        if chunk.done:
            said.end(WORDS, chunk.done_reason)
            extract.usage = tokens(chunk.prompt_eval_count, chunk.eval_count)
    return extract
