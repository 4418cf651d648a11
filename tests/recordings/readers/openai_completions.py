"""OpenAI's legacy Completions."""

from __future__ import annotations

from typing import Any

from tests.recordings.extract import Extract
from tests.recordings.readers.openai_chat import WORDS, usage
from tests.recordings.readers.openai_sdk import client, events


def read(body: bytes, *, stream: bool) -> Extract:
    """Put the texts together."""
    extract = Extract()
    create = client(body, stream=stream).completions.create

    def ask() -> Any:
        return create(model="m", prompt="", stream=stream)

    for chunk in events(ask, extract, stream=stream):
        extract.usage = usage(chunk.get("usage")) or extract.usage
        for choice in chunk.get("choices") or ():
            said = extract.choice(choice.get("index") or 0)
            said.text += choice.get("text") or ""
            said.end(WORDS, choice.get("finish_reason") or None)
    return extract
