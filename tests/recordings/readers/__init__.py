"""One reader a wire: what an answer's bytes say, by the vendor's own SDK where it has one."""

from __future__ import annotations

import importlib
import re

from tests.recordings.cases import SETTINGS, Case
from tests.recordings.extract import Extract, Said

READERS = {
    "chat": "openai_chat",
    "completions": "openai_completions",
    "responses": "openai_responses",
    "messages": "anthropic_messages",
    "invoke": "aws_invoke",
    "gemini": "google_gemini",
    "converse": "aws_converse",
    "cohere": "cohere_v2",
    "tgi": "plain_tgi",
    "ollama": "ollama_chat",
}


def read(case: Case) -> Extract:
    """Read an answer independently of the codec."""
    module = importlib.import_module(f"tests.recordings.readers.{READERS[case.wire]}")
    extract: Extract = module.read(case.body, stream=case.is_stream)
    settings = SETTINGS.get(case.provider, {})
    for said in extract.choices.values():
        if settings.get("think_tags"):
            _untag(said)
        if settings.get("implied_reason") and said.finish is None:
            said.end({}, settings["implied_reason"])
    if settings.get("one_reason") and extract.usage and b"[DONE]" in case.body:
        known = next((said for said in extract.choices.values() if said.raw), None)
        for said in extract.choices.values():
            if known is not None and said.finish is None:
                said.finish, said.raw = known.finish, known.raw
    return extract


def _untag(said: Said) -> None:
    """Take thoughts out of a text that begins with ``<think>``."""
    found = re.match(r"\s*<think>(.*?)(?:</think>|$)", said.text, re.DOTALL)
    if found:
        said.reasoning.append(found[1])
        said.text = said.text[found.end() :]
