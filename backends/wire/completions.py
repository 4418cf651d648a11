"""OpenAI's legacy Completions, as clients speak it."""

from __future__ import annotations

from backends.wire.completions_reply import CompletionsEncoder, encode_answer
from backends.wire.completions_request import decode_request
from backends.wire.dialect import Dialect
from backends.wire.openai_reply import encode_error

COMPLETIONS = Dialect(
    "completions", decode_request, CompletionsEncoder, encode_answer, encode_error
)
