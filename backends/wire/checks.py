"""Checks of single request fields: each says what is wrong, where, and what to write.

A check takes a path and a value and raises ``InvalidRequest`` or returns None.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from backends.types import utf8_bytes
from backends.wire.said import call_texts

Check: TypeAlias = Callable[[str, Any], None]

MAX_STOPS = 4
MAX_CHOICES = 2048
"""Answers to one request, over all its prompts."""
MAX_NAME_CHARS = 256
MAX_DEPTH = 64
"""Nesting of a body. Deeper is no chat request, and costs recursion everywhere after."""
MAX_NODES = 200_000
"""Values of all kinds in a body."""

MAX_MODELS = 32
MAX_INTEGER = 2**53 - 1
"""Beyond it JSON readers disagree about what was written."""

MAX_MESSAGE_CHARS = 600
"""An error repeats names that the client chose; these may be as long as a body."""


class InvalidRequest(ValueError):
    """The client's request is wrong.

    Attributes:
        message: what is wrong and what to write instead.
        param: the path of the field, or None when it is the whole body.
        code: a short machine-readable kind.
    """

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        """Say what is wrong at ``param``."""
        self.message = _shortened(message, MAX_MESSAGE_CHARS)
        super().__init__(self.message)
        self.param = None if param is None else _shortened(param, MAX_NAME_CHARS)
        self.code = code


def number(low: float, high: float) -> Check:
    """Return a check for a number in [low, high]."""

    def check(path: str, value: Any) -> None:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not low <= value <= high:  # false for NaN, too
            raise InvalidRequest(f"{path!r} must be a number from {low} to {high}", path)

    return check


def integer(low: int, high: int = MAX_INTEGER) -> Check:
    """Return a check for a whole number in [low, high]."""
    words = f"of at least {low}" if high == MAX_INTEGER else f"from {low} to {high}"

    def check(path: str, value: Any) -> None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not low <= value <= high:
            raise InvalidRequest(f"{path!r} must be a whole number {words}", path)

    return check


def one_of(*words: str) -> Check:
    """Return a check for one of a few words."""

    def check(path: str, value: Any) -> None:
        if value not in words:
            raise InvalidRequest(f"{path!r} must be one of {', '.join(words)}", path)

    return check


def list_of(item: Check) -> Check:
    """Return a check for a list whose items pass ``item``."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, list):
            raise InvalidRequest(f"{path!r} must be a list", path)
        for position, entry in enumerate(value):
            item(f"{path}[{position}]", entry)

    return check


def empty(why: str) -> Check:
    """Return a check for a list that must be empty here, with the reason."""

    def check(path: str, value: Any) -> None:
        if value != []:
            raise InvalidRequest(f"{path!r} must be empty: {why}", path, "unsupported")

    return check


def boolean(path: str, value: Any) -> None:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise InvalidRequest(f"{path!r} must be true or false", path)


def text(path: str, value: Any) -> None:
    """Check for a string."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{path!r} must be a string", path)


def mapping(path: str, value: Any) -> None:
    """Check for an object."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path!r} must be an object", path)


def object_of(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Return a check for an object with these fields; null counts as absent, others travel on."""

    def check(path: str, value: Any) -> None:
        mapping(path, value)
        for name, of in needed.items():
            of(f"{path}.{name}", value.get(name))
        for name, of in (optional or {}).items():
            if value.get(name) is not None:
                of(f"{path}.{name}", value[name])

    return check


def text_or_object(path: str, value: Any) -> None:
    """Check for a string or an object."""
    if not isinstance(value, str | dict):
        raise InvalidRequest(f"{path!r} must be a string or an object", path)


def typed_object(path: str, value: Any) -> None:
    """Check for an object with a string ``type``."""
    mapping(path, value)
    if not isinstance(value.get("type"), str):
        raise InvalidRequest(f"'{path}.type' must be a string", f"{path}.type")


def model_name(path: str, value: Any) -> None:
    """Check for a model's name."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
        raise InvalidRequest(f"{path!r} must be a model's name; see GET /v1/models", path)


def model_names(path: str, value: Any) -> None:
    """Check for a list of model names."""
    list_of(model_name)(path, value)
    if len(value) > MAX_MODELS:
        raise InvalidRequest(f"{path!r} must name at most {MAX_MODELS} models", path)


def usage_options(path: str, value: Any) -> None:
    """Check the legacy ``usage`` object; usage is always sent, so ``include`` has no effect."""
    mapping(path, value)
    for name, flag in value.items():
        if name != "include":
            raise InvalidRequest(f"unknown field '{path}.{name}'; 'include' is known", path)
        boolean(f"{path}.{name}", flag)


def stop_texts(path: str, value: Any) -> None:
    """Check for one stop text or a few."""
    if isinstance(value, str) and value:
        return
    if not isinstance(value, list) or len(value) > MAX_STOPS:
        raise InvalidRequest(
            f"{path!r} must be a text or a list of at most {MAX_STOPS} texts", path
        )
    for position, entry in enumerate(value):
        if not isinstance(entry, str) or not entry:
            where = f"{path}[{position}]"
            raise InvalidRequest(f"{where!r} must be a string that is not empty", where)


def biases(path: str, value: Any) -> None:
    """Check ``logit_bias``: token ids (as strings) to numbers from -100 to 100."""
    mapping(path, value)
    for token, bias in value.items():
        where = f"{path}.{token}"
        if not token.isdecimal():
            raise InvalidRequest(f"{where!r}: the key must be a token id", where)
        number(-100, 100)(where, bias)


def cache_control(path: str, value: Any) -> None:
    """Check for a breakpoint of the prompt cache, with the default time to live."""
    mapping(path, value)
    if value.get("ttl") not in (None, "5m"):
        raise InvalidRequest(
            f"'{path}.ttl' must be '5m': a longer one has a price of its own and is not offered",
            f"{path}.ttl",
            "unsupported",
        )


def breakpoint_of(path: str, value: Mapping[str, Any]) -> None:
    """Check the ``cache_control`` of a part, a message or a tool, if there is one."""
    if value.get("cache_control") is not None:
        cache_control(f"{path}.cache_control", value["cache_control"])


CUSTOM_TOOLS: Final = "tools.custom"
"""What an endpoint must honor where tools take free text."""


class Content:
    """Counts what messages carry: text, calls, images, and what an endpoint must understand."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.text_bytes = 0
        self.images = 0
        self.image_bytes = 0
        self.required: set[str] = set()

    def count(self, message: Mapping[str, Any]) -> None:
        """Add one checked message."""
        if message["role"] == "tool" or message.get("tool_calls"):
            self.required.add("tools")
        if calls := message.get("tool_calls"):
            if any(call.get("type") == "custom" for call in calls):
                self.required.add(CUSTOM_TOOLS)
            self.text_bytes += sum(utf8_bytes(text) for text in call_texts(message))
        content = message.get("content") or ()
        if isinstance(content, str):
            self.text_bytes += utf8_bytes(content)
            return
        for part in content:
            kind = part["type"]
            if kind in ("text", "refusal"):
                self.text_bytes += utf8_bytes(part[kind])
                continue
            self.required.add(kind)
            if kind == "image_url":  # held per image; of other media every byte counts
                self.images += 1
                self.image_bytes += sum(len(v) for v in part[kind].values() if isinstance(v, str))


def json_bytes(document: Any) -> int:
    """Return how many bytes a document has as JSON."""
    return len(msgspec.json.encode(document))


def nesting(document: Any) -> None:
    """Check that a decoded document is neither deeper nor larger than any chat request.

    It walks level by level instead of recursing, so a hostile body costs a bounded time.
    """
    level: list[Any] = [document]
    seen = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            values = node.values() if isinstance(node, dict) else node
            below.extend(value for value in values if isinstance(value, dict | list))
            seen += len(node)
        if seen > MAX_NODES:
            raise InvalidRequest(f"the body holds more than {MAX_NODES} values")
        if not below:
            return
        level = below
    raise InvalidRequest(f"the body is nested more than {MAX_DEPTH} levels deep; flatten it")


def closest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` or an empty string."""
    match = difflib.get_close_matches(name[:MAX_NAME_CHARS], list(known), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
