"""A chunk of OpenAI's chat, as the decoder reads it: few typed fields, and what stands in them.

A field that servers fill in more than one way is ``Any``; what it may hold is read here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec


class Function(msgspec.Struct, gc=False):
    """What a piece says of a function's call."""

    name: str | None = None
    arguments: Any = None


class Custom(msgspec.Struct, gc=False):
    """The same of a custom tool, whose input is free text."""

    name: str | None = None
    input: Any = None


class CallPiece(msgspec.Struct, gc=False):
    """A piece of a call, or all of it."""

    index: int | None = None
    id: Any = None
    function: Function | None = None
    custom: Custom | None = None
    type: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    """The last three of a call that is flat, as Responses and Anthropic have them."""


class ChatDelta(msgspec.Struct, gc=False):
    """What a chunk says of a choice; in a whole answer its message."""

    content: Any = None
    reasoning: str | dict[str, Any] | None = None
    reasoning_content: str | None = None
    reasoning_details: Any = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None
    function_call: Function | None = None
    images: Any = None
    annotations: Any = None
    content_list: Any = None
    thinking_blocks: Any = None
    content_blocks: Any = None


class ChatChoice(msgspec.Struct, gc=False):
    """One choice of a chunk."""

    index: int = 0
    delta: ChatDelta | None = None
    message: Any = None
    finish_reason: str | None = None
    native_finish_reason: Any = None
    logprobs: Any = None
    content_filter_results: Any = None
    finish_details: Any = None
    error: Any = None


class ChatChunk(msgspec.Struct, gc=False):
    """One payload of a stream, or a whole answer."""

    id: Any = None
    model: str | None = None
    choices: list[ChatChoice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    citations: Any = None
    search_results: Any = None


decode: Final = msgspec.json.Decoder(ChatChunk).decode


def deep(group: Any, name: str) -> Any:
    """Return a field of an object; None where either is not there."""
    return group.get(name) if isinstance(group, dict) else None


def list_of(value: Any) -> list[Any]:
    """Return a list as it is; what is none is empty."""
    return value if isinstance(value, list) else []


def tokens_of(logprobs: Any) -> dict[str, Any] | None:
    """Read log probabilities; their lists of tokens are lists, whatever else a vendor adds."""
    if not isinstance(logprobs, dict):
        return None
    lists = ("content", "refusal")
    return {k: v for k, v in logprobs.items() if k not in lists or v is None or v.__class__ is list}


def old_reason(details: Any) -> str:
    """Read the reason of OpenAI's first vision models, which stands in an object."""
    found = details.get("type") if isinstance(details, dict) else None
    return found if isinstance(found, str) else ""


def urls_of(images: Any) -> list[str]:
    """Read the images of a delta: parts of type ``image_url``, as OpenRouter sends them."""
    found = []
    for image in list_of(images):
        link = image.get("image_url") if isinstance(image, dict) else None
        url = link.get("url") if isinstance(link, dict) else link
        if isinstance(url, str) and url:
            found.append(url)
    return found


def kind_of(part: Any) -> Any:
    """Return the type of a part; None if it has none."""
    return part.get("type") if isinstance(part, dict) else None


def joined(parts: list[Any], kind: str, alias: str = "") -> str:
    """Join the texts of one kind in content that came as a list of typed parts."""
    pieces = []
    for part in parts:
        if kind_of(part) in (kind, alias or kind):
            piece = part.get(kind)
            if isinstance(piece, list) and kind != "text":
                piece = joined(piece, "text")
            pieces.append(piece)
    return "".join(piece for piece in pieces if isinstance(piece, str))
