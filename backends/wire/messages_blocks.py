"""Content blocks of Anthropic's Messages, read into canonical messages.

Source: the Messages reference and the types of Anthropic's SDK 2.12 (read 2026-11).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from backends.wire import checks
from backends.wire.checks import InvalidRequest
from backends.wire.details import ANTHROPIC
from backends.wire.shapes import REASONING_DETAIL

_WRAPPED: Final = "tollway-reasoning:"
_ROLES: Final = ("user", "assistant", "system")
_MEDIA_SOURCES: Final = ("base64", "url")
_PLAIN: Final = {"type", "text", "citations"}
"""What a text block may have and still be no more than its text."""


def wrap(detail: Mapping[str, Any]) -> str:
    """Put another vendor's reasoning detail into what a ``redacted_thinking`` block may hold.

    Clients of this dialect hand such blocks back unread; ``unwrap`` finds the detail again.
    """
    return _WRAPPED + base64.urlsafe_b64encode(msgspec.json.encode(detail)).decode()


def unwrap(data: Any) -> dict[str, Any] | None:
    """Return the detail that ``wrap`` put away; None if the data is Anthropic's own."""
    if not isinstance(data, str) or not data.startswith(_WRAPPED):
        return None
    try:
        detail = msgspec.json.decode(base64.urlsafe_b64decode(data[len(_WRAPPED) :]))
    except (msgspec.DecodeError, binascii.Error, UnicodeError, RecursionError):
        return {}
    try:
        REASONING_DETAIL("data", detail)
    except InvalidRequest:
        return {}
    found: dict[str, Any] = detail
    return found


def cacheable(path: str, value: Any) -> dict[str, Any]:
    """Return the ``cache_control`` of a block as a canonical part carries it.

    Raises:
        InvalidRequest: it asks for a cache time that has a price of its own.
    """
    control = value.get("cache_control")
    if control is None:
        return {}
    checks.cache_control(f"{path}.cache_control", control)
    return {"cache_control": control}


class Reader:
    """Turns a body's ``system`` and ``messages`` into canonical messages, checking them.

    Attributes:
        messages: what was read so far.
        required: what only an upstream of this wire can honor of it.
        documents: how many documents there were.
    """

    def __init__(self) -> None:
        """Start with nothing read."""
        self.messages: list[dict[str, Any]] = []
        self.required: set[str] = set()
        self.documents = 0

    def system(self, path: str, value: Any) -> None:
        """Read a system prompt, of the body or amid the conversation."""
        if isinstance(value, str):
            self.messages.append({"role": "system", "content": value})
            return
        parts = [
            self._text(where, block)
            for where, block in _blocks(path, value)
            if _kind(where, block, "text")
        ]
        if parts:
            self.messages.append({"role": "system", "content": parts})

    def message(self, path: str, value: Any) -> None:
        """Read one message; results of tools become messages of their own."""
        checks.mapping(path, value)
        role = value.get("role")
        if role not in _ROLES:
            raise InvalidRequest(
                f"'{path}.role' must be one of {', '.join(_ROLES)}", f"{path}.role"
            )
        content, where = value.get("content"), f"{path}.content"
        if role == "system":
            self.system(where, content)
        elif isinstance(content, str):
            self.messages.append({"role": role, "content": content})
        elif role == "user":
            self._user(where, content)
        else:
            self._assistant(where, content)

    def _user(self, path: str, content: Any) -> None:
        parts: list[dict[str, Any]] = []
        for where, block in _blocks(path, content):
            if block["type"] != "tool_result":
                parts += self._parts(where, block)
                continue
            if parts:
                self.messages.append({"role": "user", "content": parts})
                parts = []
            self._result(where, block)
        if parts:
            self.messages.append({"role": "user", "content": parts})

    def _result(self, path: str, block: Mapping[str, Any]) -> None:
        if not isinstance(block.get("tool_use_id"), str):
            where = f"{path}.tool_use_id"
            raise InvalidRequest(f"{where!r} must be the id of the tool_use it answers", where)
        cache, content = cacheable(path, block), block.get("content")
        if content is None:
            content = ""
        if isinstance(content, list):
            found = _blocks(f"{path}.content", content)
            content = [part for where, inner in found for part in self._parts(where, inner)] or ""
        elif not isinstance(content, str):
            raise InvalidRequest(f"'{path}.content' must be a string or a list of blocks", path)
        if cache:
            content = [{"type": "text", "text": content}] if isinstance(content, str) else content
            content[-1] = {**content[-1], **cache}
        message = {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}
        if block.get("is_error") is not None:
            checks.boolean(f"{path}.is_error", block["is_error"])
            if block["is_error"]:
                message["is_error"] = True
        self.messages.append(message)

    def _assistant(self, path: str, content: Any) -> None:
        parts: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        details: list[dict[str, Any]] = []
        thoughts: list[str] = []
        for where, block in _blocks(path, content):
            kind = block["type"]
            if kind == "thinking":
                checks.text(f"{where}.thinking", block.get("thinking"))
                thoughts.append(block["thinking"])
                if signature := block.get("signature"):
                    checks.text(f"{where}.signature", signature)
                    detail = {"type": "reasoning.text", "text": block["thinking"]}
                    details.append({**detail, "signature": signature})
            elif kind == "redacted_thinking":
                checks.text(f"{where}.data", block.get("data"))
                foreign = unwrap(block["data"])
                if foreign is None:
                    details.append({"type": "reasoning.encrypted", "data": block["data"]})
                elif foreign:
                    details.append(foreign)
            elif kind == "tool_use":
                calls.append(_call(where, block))
            else:
                parts += self._parts(where, block)
        message: dict[str, Any] = {"role": "assistant", "content": _joined(parts)}
        if any(thoughts):
            message["reasoning"] = "".join(thoughts)
        if details:
            message["reasoning_details"] = [
                {"format": ANTHROPIC, "index": index, **detail}
                for index, detail in enumerate(details)
            ]
        if calls:
            message["tool_calls"] = calls
        self.messages.append(message)

    def _parts(self, path: str, block: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the canonical parts of a block that is shown to the model.

        Raises:
            InvalidRequest: the block is wrong, or of a kind that is not offered.
        """
        kind = block["type"]
        if kind == "text":
            return [self._text(path, block)]
        if kind == "image":
            url = _media(path, block.get("source"))
            image = {"type": "image_url", "image_url": {"url": url}}
            return [{**image, **cacheable(path, block)}]
        if kind == "document":
            self.documents += 1
            return self._document(path, block)
        if kind == "search_result":
            self.required.add("messages.search_result")
            heads = [str(block[name]) for name in ("title", "source") if block.get(name)]
            found = _blocks(f"{path}.content", block.get("content"))
            texts = [self._text(where, inner)["text"] for where, inner in found]
            text = "\n".join([*heads, *texts])
            return [{"type": "text", "text": text, **cacheable(path, block)}]
        raise InvalidRequest(
            f"'{path}.type': blocks of type {kind!r} are not offered here", path, "unsupported"
        )

    @staticmethod
    def _text(path: str, block: Mapping[str, Any]) -> dict[str, Any]:
        checks.text(f"{path}.text", block.get("text"))
        return {"type": "text", "text": block["text"], **cacheable(path, block)}

    def _document(self, path: str, block: Mapping[str, Any]) -> list[dict[str, Any]]:
        where = f"{path}.source"
        checks.typed_object(where, block.get("source"))
        source: dict[str, Any] = block["source"]
        citations = block.get("citations")
        if isinstance(citations, dict) and citations.get("enabled"):
            self.required.add("messages.citations")
        cache = cacheable(path, block)
        heads = [str(block[name]) for name in ("title", "context") if block.get(name)]
        if source["type"] == "text":
            checks.text(f"{where}.data", source.get("data"))
            return [{"type": "text", "text": "\n".join([*heads, source["data"]]), **cache}]
        if source["type"] == "content":
            content = source.get("content")
            if isinstance(content, str):
                return [{"type": "text", "text": "\n".join([*heads, content]), **cache}]
            found = _blocks(f"{where}.content", content)
            return [part for at, inner in found for part in self._parts(at, inner)]
        url = _media(path, source)
        field = "file_url" if source["type"] == "url" else "file_data"
        file = {"filename": str(block.get("title") or "document.pdf"), field: url}
        return [{"type": "file", "file": file, **cache}]


def _blocks(path: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the blocks of a content, each with its path."""
    if not isinstance(value, list):
        raise InvalidRequest(f"{path!r} must be a string or a list of blocks", path)
    found = [(f"{path}[{position}]", block) for position, block in enumerate(value)]
    for where, block in found:
        checks.typed_object(where, block)
    return found


def _kind(path: str, block: Mapping[str, Any], kind: str) -> bool:
    if block["type"] != kind:
        raise InvalidRequest(f"'{path}.type' must be {kind!r}", f"{path}.type")
    return True


def _media(path: str, given: Any) -> str:
    """Return the URL of an image or a document."""
    where = f"{path}.source"
    checks.typed_object(where, given)
    source: dict[str, Any] = given
    if source["type"] not in _MEDIA_SOURCES:
        raise InvalidRequest(
            f"'{where}.type' must be one of {', '.join(_MEDIA_SOURCES)}; file stores are not "
            "offered",
            f"{where}.type",
            "unsupported",
        )
    if source["type"] == "url":
        checks.text(f"{where}.url", source.get("url"))
        return str(source["url"])
    checks.text(f"{where}.media_type", source.get("media_type"))
    checks.text(f"{where}.data", source.get("data"))
    return f"data:{source['media_type']};base64,{source['data']}"


def _call(path: str, block: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("id", "name"):
        checks.text(f"{path}.{name}", block.get(name))
    given = block.get("input")
    arguments = msgspec.json.encode({} if given is None else given).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]] | None:
    """Return plain texts as one string: few upstreams take parts of an assistant."""
    if all(part.keys() <= _PLAIN for part in parts):
        return "".join(part["text"] for part in parts) or None
    return parts
