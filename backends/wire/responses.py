"""OpenAI Responses, as clients speak it."""

from __future__ import annotations

from backends.wire.dialect import Dialect
from backends.wire.responses_reply import ResponsesEncoder, encode_answer, encode_error
from backends.wire.responses_request import decode_request

RESPONSES = Dialect("responses", decode_request, ResponsesEncoder, encode_answer, encode_error)
