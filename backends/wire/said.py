"""The texts that a message of a conversation is made of, for counts of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_ARGUMENTS: Final = {"function": "arguments", "custom": "input"}
"""What a call of each type says beside its name."""


def content_texts(message: Mapping[str, Any]) -> list[str]:
    """Return the texts among the parts of a checked message's content."""
    content = message.get("content") or ()
    if isinstance(content, str):
        return [content]
    return [part[part["type"]] for part in content if part["type"] in ("text", "refusal")]


def call_texts(message: Mapping[str, Any]) -> list[str]:
    """Return what a checked message calls, with what: all of a call that only others know."""
    texts: list[str] = []
    for call in message.get("tool_calls") or ():
        for kind, arguments in _ARGUMENTS.items():
            if isinstance(made := call.get(kind), dict):
                texts += [made["name"], made.get(arguments) or ""]
                break
        else:
            texts.append(msgspec.json.encode(call).decode())
    return texts
