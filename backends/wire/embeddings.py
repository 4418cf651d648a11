"""OpenAI's Embeddings, as clients speak it."""

from __future__ import annotations

from backends.wire.dialect import Dialect
from backends.wire.embeddings_reply import encode_answer, never_streamed
from backends.wire.embeddings_request import decode_request
from backends.wire.openai_reply import encode_error

EMBEDDINGS = Dialect("embeddings", decode_request, never_streamed, encode_answer, encode_error)
