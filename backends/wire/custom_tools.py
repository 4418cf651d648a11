"""OpenAI's custom tools, whose input is free text: nested as chat has them, flat as Responses do.

Wires that have only functions ask here for the function of a call or a choice.

Source: OpenAI's API reference and the types of its SDK 3.54 (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.errors import Unsupported
from backends.wire import checks

_FLAT: Final = checks.object_of(
    {"name": checks.text}, {"description": checks.text, "format": checks.typed_object}
)


def nested(path: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool of Responses in the canonical shape.

    Raises:
        InvalidRequest: it is none.
    """
    _FLAT(path, tool)
    known = ("name", "description", "format")
    custom = {name: tool[name] for name in known if tool.get(name) is not None}
    form = custom.get("format", {})
    if form.get("type") == "grammar":
        grammar = {name: value for name, value in form.items() if name != "type"}
        custom["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": "custom", "custom": custom}


def flat(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as Responses have it."""
    made = {"type": "custom", **tool["custom"]}
    if grammar := (made.get("format") or {}).get("grammar"):
        made["format"] = {"type": "grammar", **grammar}
    return made


def function_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the function that an earlier call is of.

    Raises:
        Unsupported: it is of another tool.
    """
    function = call.get("function")
    if isinstance(function, Mapping):
        return function
    kind = str(call.get("type"))
    inner = call.get(kind)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    raise Unsupported(
        f"'tool_calls': the call of {name!r} is of type {kind!r}; this endpoint has functions only"
    )


def chosen_function(choice: Mapping[str, Any]) -> str:
    """Return the name of the function that a ``tool_choice`` demands.

    Raises:
        Unsupported: it demands something else.
    """
    function = choice.get("function")
    if not isinstance(function, Mapping):
        kind = choice.get("type")
        raise Unsupported(f"'tool_choice': the type {kind!r} is not offered at this endpoint")
    return str(function["name"])
