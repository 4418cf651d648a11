"""OpenAI Chat Completions, as clients speak it."""

from __future__ import annotations

from backends.wire.dialect import Dialect
from backends.wire.openai_reply import ChunkEncoder, encode_answer, encode_error
from backends.wire.openai_request import decode_request

CHAT = Dialect("openai", decode_request, ChunkEncoder, encode_answer, encode_error)
