"""The forms in which vendors of OpenAI's chat wire want a request, and one given that form.

A form is data (``backends/vendors``); what each of its fields means is here, once for all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from backends.errors import Unsupported
from backends.types import ChatRequest
from backends.wire import vendor_options
from backends.wire.details import text_of
from backends.wire.openai_request import encode_request

_NOT_ALNUM: Final = re.compile(r"[^A-Za-z0-9]")
_HANDED_BACK: Final = ("reasoning", "reasoning_details", "reasoning_content")


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an upstream's requests look like where they are not OpenRouter's."""

    output_field: Literal["", "max_tokens", "max_completion_tokens"] = ""
    """The one name of the output limit it takes; empty: the caller's."""

    rename: dict[str, str] = {}
    """Its own names of fields."""

    usage: Literal["stream_options", "always"] = "stream_options"
    """``always``: it reports usage unasked, and refuses to be asked."""

    reasoning: Literal["", "effort", "thinking", "enable_thinking"] = ""
    """How reasoning is steered. ``effort``: only by ``reasoning_effort``; ``thinking``: by an
    object with ``type``; ``enable_thinking``: by a flag and ``thinking_budget``. Empty: the
    caller's fields travel as they are."""

    reasoning_field: Literal[
        "", "none", "reasoning", "reasoning_content", "reasoning_details", "thinking"
    ] = ""
    """Where the reasoning of earlier turns is handed back. ``thinking`` is a part of content;
    ``none``: nowhere. Empty: messages travel as they are."""

    call_id_chars: int = 0
    """Ids of calls must have just as many letters and digits; 0: any id will do."""

    developer: bool = True
    """It knows the role ``developer``; otherwise that is sent as ``system``."""

    cache_control: bool = True
    """It lets marks of cached prefixes stand in parts and tools; otherwise they are left out."""


def shaped(
    request: ChatRequest, form: Form, *, model: str, options_key: str = ""
) -> dict[str, Any]:
    """Return the chat body for an upstream of this form; see ``openai_request.encode_request``.

    Raises:
        Unsupported: the reasoning that is asked for cannot be said there.
    """
    body = encode_request(request, model=model)
    if form.output_field and request.output_bound is not None:
        body.pop(request.output_field, None)
        body[form.output_field] = request.output_bound
    if form.reasoning:
        _steer(body, form.reasoning)
    for name, theirs in form.rename.items():
        if name in body:
            body[theirs] = body.pop(name)
    if form.usage == "always":
        del body["stream_options"]
    changes = _changes(form)
    if request.native is not None:
        changes.append(_plain)
    if changes:
        body["messages"] = [_message(message, changes) for message in request.messages]
    if not form.cache_control and "tools" in body:
        body["tools"] = [_without(tool, ("cache_control",)) for tool in body["tools"]]
    vendor_options.add(body, request, options_key)
    return body


def _steer(body: dict[str, Any], style: str) -> None:
    """Say the wish for reasoning in a vendor's own words.

    Raises:
        Unsupported: it has no words for it.
    """
    wish = body.pop("reasoning", None) or {}
    effort = body.pop("reasoning_effort", None) or wish.get("effort")
    if effort is None and wish.get("enabled") is False:
        effort = "none"
    budget = wish.get("max_tokens")
    if budget is not None and style != "enable_thinking":
        raise Unsupported(
            "'reasoning.max_tokens': this endpoint takes no budget; write 'reasoning.effort'"
        )
    if style == "effort":
        if effort is not None:
            body["reasoning_effort"] = effort
        return
    on = None if effort is None and not wish else effort != "none"
    if on is None:
        return
    if style == "thinking":
        body["thinking"] = {"type": "enabled" if on else "disabled"}
        return
    body["enable_thinking"] = on
    limit = body.get("max_tokens")
    if on and limit is not None:
        # There the limit is of the answer alone, and what is held covers both.
        budget = limit // 2 if budget is None else budget
        if budget >= limit:
            raise Unsupported(
                f"reasoning of {budget} tokens does not fit: 'max_tokens' ({limit}) must be more"
            )
        body["max_tokens"] = limit - budget
    if budget is not None:
        body["thinking_budget"] = budget


_Change = Callable[[dict[str, Any]], None]


def _changes(form: Form) -> list[_Change]:
    """Return what has to be done to each message, which is a copy; nothing for most forms."""
    changes: list[_Change] = []
    if not form.developer:
        changes.append(_to_system)
    if form.reasoning_field:
        changes.append(lambda message: _hand_back(message, form.reasoning_field))
    if form.call_id_chars:
        changes.append(lambda message: _short_ids(message, form.call_id_chars))
    if not form.cache_control:
        changes.append(_unmark)
    return changes


def _message(message: Mapping[str, Any], changes: Sequence[_Change]) -> dict[str, Any]:
    copy = dict(message)
    for change in changes:
        change(copy)
    return copy


def _plain(message: dict[str, Any]) -> None:
    """Leave out what only the client's own dialect can say; strict upstreams refuse it."""
    message.pop("is_error", None)


def _to_system(message: dict[str, Any]) -> None:
    if message.get("role") == "developer":
        message["role"] = "system"


def _hand_back(message: dict[str, Any], field: str) -> None:
    """Leave the reasoning of an earlier turn where the vendor looks for it."""
    said = {name: message.pop(name, None) for name in _HANDED_BACK}
    details = said["reasoning_details"]
    text = said["reasoning"] or said["reasoning_content"] or text_of(details)
    if field == "reasoning_details":
        message |= {name: value for name, value in said.items() if value}
    elif text and field == "thinking":
        content = message.get("content") or []
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
        message["content"] = [thought, *content]
    elif text and field != "none":
        message[field] = text


def _short_ids(message: dict[str, Any], chars: int) -> None:
    """Give calls and their results ids of the right length; the same id becomes the same."""
    if isinstance(id := message.get("tool_call_id"), str):  # noqa: A001
        message["tool_call_id"] = _short(id, chars)
    if message.get("tool_calls"):
        message["tool_calls"] = [
            {**call, "id": _short(str(call.get("id")), chars)} for call in message["tool_calls"]
        ]


def _short(id: str, chars: int) -> str:  # noqa: A002
    if len(id) == chars and not _NOT_ALNUM.search(id):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:chars]


def _unmark(message: dict[str, Any]) -> None:
    message.pop("cache_control", None)
    if isinstance(parts := message.get("content"), list):
        message["content"] = [_without(part, ("cache_control",)) for part in parts]


def _without(fields: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(fields, dict):
        return fields
    return {name: value for name, value in fields.items() if name not in names}
