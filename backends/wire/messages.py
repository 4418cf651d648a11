"""Anthropic Messages, as clients speak it."""

from __future__ import annotations

from backends.wire.dialect import Dialect
from backends.wire.messages_reply import MessagesEncoder, encode_answer, encode_error
from backends.wire.messages_request import decode_request

MESSAGES = Dialect("messages", decode_request, MessagesEncoder, encode_answer, encode_error)
