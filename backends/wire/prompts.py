"""What the two dialects that take bare text share: texts or token lists, one or several."""

from __future__ import annotations

from typing import Any, NamedTuple

from backends.errors import Unsupported
from backends.types import ChatRequest, utf8_bytes
from backends.wire.checks import InvalidRequest

MAX_INPUTS = 2048
"""Texts in one request, as OpenAI has it."""

FRAME_BYTES = 16
"""What a server may put around each further text: marks of begin and end, an instruction."""

_PLAIN_ROLES = frozenset({"system", "developer", "user"})
_TOKEN_BYTES = 4
"""A token stands for so many bytes where our own count is bytes / 4."""


class Inputs(NamedTuple):
    """A ``prompt`` or ``input``, checked."""

    items: tuple[Any, ...]
    """Each a text or a list of token ids."""

    content_bytes: int
    tokens: bool
    """Whether any is a list of token ids, which only the server's own tokenizer can read."""

    @property
    def frame_bytes(self) -> int:
        """What more than the body's bytes can become tokens."""
        return FRAME_BYTES * (len(self.items) - 1)


def read_inputs(path: str, value: Any) -> Inputs:
    """Read a text, a list of texts, a list of token ids, or a list of such lists.

    Raises:
        InvalidRequest: it is none of these, empty, or more than ``MAX_INPUTS``.
    """
    if isinstance(value, str) or (value and _is_tokens(value)):
        items = (value,)
    elif isinstance(value, list) and value:
        items = tuple(value)
    else:
        raise InvalidRequest(
            f"{path!r} is required: a text, a list of texts, or lists of token ids", path
        )
    if len(items) > MAX_INPUTS:
        raise InvalidRequest(f"{path!r} must hold at most {MAX_INPUTS} texts", path)
    size, tokens = 0, False
    for position, item in enumerate(items):
        if isinstance(item, str):
            size += utf8_bytes(item)
        elif item and _is_tokens(item):
            size += _TOKEN_BYTES * len(item)
            tokens = True
        else:
            where = f"{path}[{position}]"
            raise InvalidRequest(f"{where!r} must be a text or a list of token ids", where)
    return Inputs(items, size, tokens)


def prompt_of(request: ChatRequest) -> str:
    """Return the one text that a server without a chat template shall go on with.

    It is the prompt of a legacy completion, or one user's text as it is, after system text.

    Raises:
        Unsupported: there are turns, media or several prompts, which it cannot express.
    """
    if request.operation == "completions":
        if len(request.inputs) == 1 and isinstance(request.inputs[0], str):
            return request.inputs[0]
        raise Unsupported("this endpoint takes one prompt, as text")
    roles = [message["role"] for message in request.messages]
    if roles.count("user") != 1 or roles[-1] != "user" or set(roles) - _PLAIN_ROLES:
        raise Unsupported(
            "this endpoint continues a text and knows no turns: send one user message, "
            "with or without a system message before it"
        )
    return "\n".join(text_of(message.get("content")) for message in request.messages)


def text_of(content: Any) -> str:
    """Return the text of a message's content.

    Raises:
        Unsupported: it has a part that is no text.
    """
    if isinstance(content, str) or content is None:
        return content or ""
    for part in content:
        if part["type"] not in ("text", "refusal"):
            raise Unsupported(f"this endpoint takes no part of type {part['type']!r} here")
    return "".join(part[part["type"]] for part in content)


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(entry) is int and entry >= 0 for entry in value)
