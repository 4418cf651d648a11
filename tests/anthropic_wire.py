"""Events of Anthropic's Messages wire, written by hand, for tests of what reads and sends them."""

from __future__ import annotations

import json
from typing import Any


def event(kind: str, **fields: Any) -> bytes:
    """Return one event as Anthropic frames it."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def start(usage: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """Return the start of a message."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return event("message_start", message=message | fields)


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
    """Return a block with its deltas, from start to stop."""
    return [
        event("content_block_start", index=index, content_block=content),
        *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
        event("content_block_stop", index=index),
    ]


def text(index: int, *pieces: str) -> list[bytes]:
    """Return a block of text."""
    deltas = ({"type": "text_delta", "text": piece} for piece in pieces)
    return block(index, {"type": "text", "text": ""}, *deltas)


def tool_use(index: int, name: str, *pieces: str, call: str = "") -> list[bytes]:
    """Return a block of a tool call, its arguments in pieces."""
    content = {"type": "tool_use", "id": call or f"toolu_{index}", "name": name, "input": {}}
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces))
    return block(index, content, *deltas)


def end(reason: str = "end_turn", usage: dict[str, Any] | None = None, **delta: Any) -> list[bytes]:
    """Return the end of a message."""
    fields: dict[str, Any] = {
        "delta": {"stop_reason": reason, "stop_sequence": None, **delta},
    }
    if usage is not None:
        fields["usage"] = usage
    return [event("message_delta", **fields), event("message_stop")]


def answer(*pieces: str, prompt: int = 7, counted: bool = True) -> list[bytes]:
    """Return the events of an answer of text, counted as one token a piece."""
    given = {"input_tokens": prompt, "output_tokens": 1} if counted else None
    last = {"output_tokens": len(pieces)} if counted else None
    return [start(given), event("ping"), *text(0, *pieces), *end(usage=last)]
