"""Bedrock's ``invoke-with-response-stream`` for Anthropic's models: their own wire in frames.

Source: "Anthropic Claude Messages API" in the user guide of Amazon Bedrock (read 2026-11): the
URL names the model and says that it streams, ``anthropic_version`` stands in the body.
"""

from __future__ import annotations

from typing import Any, Final

from backends.errors import Unsupported
from backends.types import ChatRequest
from backends.wire import messages_request
from backends.wire.aws_frames import Frames, invoked
from backends.wire.decoder import Framing
from backends.wire.messages_stream import MessagesDecoder
from backends.wire.messages_upstream import MESSAGES_FIELDS

FIELDS: Final = MESSAGES_FIELDS - {"cache_control", "messages.service_tier"}
"""What Bedrock knows of Anthropic's fields; cache points within messages and tools it takes."""

_VERSION: Final = "bedrock-2023-05-31"


class InvokeDecoder(MessagesDecoder):
    """Anthropic's events, each in base64 in a frame; counts of Bedrock's own may be glued on."""

    def framing(self, first: bytes) -> Framing | None:
        """See ``AnswerDecoder``."""
        return None if first in (b"{", b"[") else Frames(invoked)


def encode_request(
    request: ChatRequest, *, model: str, options_key: str = "", adaptive: bool = False
) -> dict[str, Any]:
    """Return Anthropic's body as Bedrock wants it; see ``messages_request.encode_request``.

    Raises:
        Unsupported: this wire cannot say what is asked, as media by URL.
    """
    body = messages_request.encode_request(
        request, model=model, options_key=options_key, adaptive=adaptive
    )
    for message in body["messages"]:
        _no_urls(message.get("content"))
    del body["model"], body["stream"]
    return {"anthropic_version": _VERSION, **body}


def _no_urls(blocks: Any) -> None:
    """Bedrock fetches nothing for Anthropic's models: media have to be in the request.

    Raises:
        Unsupported: a block's source is an address.
    """
    for block in blocks if isinstance(blocks, list) else ():
        source = block.get("source")
        if isinstance(source, dict) and source.get("type") == "url":
            raise Unsupported("this endpoint takes media as data: URLs with base64 only")
        _no_urls(block.get("content"))
