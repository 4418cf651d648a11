"""One reader a wire: an answer's bytes to what they say, by the vendor's own SDK where it has one."""

from __future__ import annotations

import importlib

from tests.recordings.cases import Case
from tests.recordings.extract import Extract

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
    return extract
