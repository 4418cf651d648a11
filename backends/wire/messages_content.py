"""The blocks of a Message while they grow: what the stream tells of each, and what it is.

Blocks never interleave: an event of another kind closes the open block, and pieces of a second
tool call wait until the first is complete. Source: the Messages streaming reference and the types
of Anthropic's SDK 2.12 (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

import msgspec

from backends.types import (
    AnnotationDelta,
    Delta,
    ImageDelta,
    MessageStart,
    PartStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from backends.wire.calls import is_whole
from backends.wire.details import ANTHROPIC
from backends.wire.messages_blocks import wrap
from backends.wire.messages_upstream import call_input

Told = list[tuple[str, dict[str, Any]]]
"""Events of a stream: type and fields."""

_encode: Final = msgspec.json.encode
_PIECES: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}
"""Deltas that add to a text, and where they have it."""


class Blocks:
    """Says what each event becomes.

    Attributes:
        index: of the block that is open, or was last.
    """

    def __init__(self) -> None:
        """Start before the first block."""
        self.index = -1
        self._kind = ""
        """Of the open block; empty where none is open."""
        self._cited = False
        self._call = -1
        """The position of the call that is open."""
        self._said: list[str] = []
        """Its arguments so far."""
        self._custom: bool | None = None
        """Of the open call: None of a function, else whether a custom tool's input is whole."""
        self._begun: set[int] = set()
        """The calls that were told, by position."""
        self._spoke = False
        self._early: list[Any] = []
        """Citations that came before the text that they are of."""
        self._waiting: dict[int, list[Delta]] = {}
        """Blocks that wait for the open call's end: of calls by position, others below 0."""

    @property
    def takes_text(self) -> bool:
        """Whether the open block is of text that more text is added to."""
        return self._kind == "text" and not self._cited

    def delta(self, event: Delta) -> Told:
        """Tell what one event becomes."""
        if self._kind != "tool_use" or self._is_of_the_call(event):
            return self._tell(event)
        if not self._waiting and (is_whole(self._said) if self._custom is None else self._custom):
            return self._tell(event)
        self._wait(event)
        return []

    def release(self) -> Told:
        """Tell the blocks that waited, one after another."""
        waiting, self._waiting = self._waiting, {}
        events = chain.from_iterable(waiting.values())
        told = [told for event in events for told in self._tell(event)]
        return told + (self._begin_text() if self._early and self._kind != "text" else [])

    def close(self) -> Told:
        """Tell the end of the open block."""
        if not self._kind:
            return []
        rest = [] if self._custom is None else [self._input('"}')]
        if self._kind == "text" and self._early:
            rest = [self._citation(one) for one in self._early]
            self._early = []
        self._kind, self._cited, self._custom = "", False, None
        return [*rest, ("content_block_stop", {"index": self.index})]

    def waiting(self) -> list[Delta]:
        """Return what waits for the open call's end."""
        return list(chain.from_iterable(self._waiting.values()))

    def _is_of_the_call(self, event: Delta) -> bool:
        return isinstance(event, ToolCallDelta) and event.call_index == self._call

    def _wait(self, event: Delta) -> None:
        if isinstance(event, ToolCallDelta):
            key = event.call_index
        else:
            last = next(reversed(self._waiting), 0)
            key = last if last < 0 else -1 - len(self._waiting)
        self._waiting.setdefault(key, []).append(event)

    def _tell(self, event: Delta) -> Told:
        match event:
            case TextDelta() if not event.text:
                return []  # log probabilities, which this wire has not
            case TextDelta() | RefusalDelta():
                begun = [] if self.takes_text else self._begin_text()
                self._spoke = True
                return [*begun, self._part({"type": "text_delta", "text": event.text})]
            case ReasoningDelta():
                return self._reasoning(event)
            case ToolCallDelta():
                return self._tool(event)
            case AnnotationDelta():
                return self._cite(event.annotations)
            case MessageStart() | PartStart():
                return self.close() if self._kind == "text" else []
            case ImageDelta():
                return self._whole(_image(event.url))
            case _:
                raise AssertionError("a vector is no answer of a chat")

    def _begin(self, kind: str, block: Mapping[str, Any]) -> Told:
        closed = self.close()
        self.index += 1
        self._kind = kind
        return [*closed, ("content_block_start", {"index": self.index, "content_block": block})]

    def _begin_text(self) -> Told:
        return self._begin("text", {"type": "text", "text": ""})

    def _begin_thinking(self) -> Told:
        return self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})

    def _part(self, delta: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return "content_block_delta", {"index": self.index, "delta": delta}

    def _whole(self, block: Mapping[str, Any]) -> Told:
        """Tell a block that comes at once."""
        return self._begin("whole", block) + self.close()

    def _reasoning(self, event: ReasoningDelta) -> Told:
        told: Told = []
        if event.text:
            if self._kind != "thinking":
                told += self._begin_thinking()
            told.append(self._part({"type": "thinking_delta", "thinking": event.text}))
        for detail in event.details if isinstance(event.details, list) else ():
            block = _carried(detail)
            if block is None:
                continue
            if block["type"] == "redacted_thinking":
                told += self._whole(block)
                continue
            if self._kind != "thinking":
                told += self._begin_thinking()
            told.append(self._part({"type": "signature_delta", "signature": block["signature"]}))
            told += self.close()
        return told

    def _tool(self, event: ToolCallDelta) -> Told:
        told: Told = []
        if event.call_index != self._call:
            if event.call_index in self._begun:
                return told  # whole, and its end was told: only blanks can follow
            self._begun.add(event.call_index)
            opened = {"type": "tool_use", "id": event.id, "name": event.name}
            told = self._begin("tool_use", {**opened, "input": {}})
            self._call, self._said = event.call_index, []
            if event.custom:  # its text travels as the one field of an object
                self._custom = False
                told.append(self._input('{"input":"'))
        elif not event.arguments and self._custom is not None:
            self._custom = True
        if event.arguments and self._kind == "tool_use":
            self._said.append(event.arguments)
            text = event.arguments
            told.append(self._input(_encode(text)[1:-1].decode() if event.custom else text))
        return told

    def _input(self, text: str) -> tuple[str, dict[str, Any]]:
        return self._part({"type": "input_json_delta", "partial_json": text})

    def _cite(self, annotations: Iterable[Any]) -> Told:
        if not self._spoke:
            self._early += annotations
            return []
        told = [] if self._kind == "text" else self._begin_text()
        self._cited = True  # text from here on is of another block
        early, self._early = self._early, []
        return [*told, *(self._citation(annotation) for annotation in (*early, *annotations))]

    def _citation(self, annotation: Any) -> tuple[str, dict[str, Any]]:
        return self._part({"type": "citations_delta", "citation": _citation(annotation)})


class Content:
    """The blocks as a client puts them together of what it is told.

    Attributes:
        blocks: so far.
    """

    def __init__(self) -> None:
        """Start before the first block."""
        self.blocks: list[dict[str, Any]] = []
        self._pieces: list[str] = []

    def take(self, told: Told) -> None:
        """Take what is told next."""
        for kind, fields in told:
            if kind == "content_block_start":
                self.blocks.append(dict(fields["content_block"]))
            elif kind == "content_block_delta":
                self._grow(self.blocks[-1], fields["delta"])
            else:
                self._end(self.blocks[-1])

    def _grow(self, block: dict[str, Any], delta: Mapping[str, Any]) -> None:
        kind = delta["type"]
        if kind in _PIECES:
            self._pieces.append(delta[_PIECES[kind]])
        elif kind == "signature_delta":
            block["signature"] = delta["signature"]
        else:
            block.setdefault("citations", []).append(delta["citation"])

    def _end(self, block: dict[str, Any]) -> None:
        text, kind = "".join(self._pieces), block["type"]
        self._pieces = []
        if kind == "tool_use":
            block["input"] = call_input(text)
        elif kind in ("text", "thinking"):
            block[kind] = text


def _carried(detail: Any) -> dict[str, Any] | None:
    """Return the block or the signature that hands a detail back; None for plain text."""
    if not isinstance(detail, dict) or not (detail.get("signature") or detail.get("data")):
        return None
    if detail.get("format") != ANTHROPIC:
        return {"type": "redacted_thinking", "data": wrap(detail)}
    if detail.get("signature"):
        return {"type": "thinking", "signature": detail["signature"]}
    return {"type": "redacted_thinking", "data": detail["data"]}


def _citation(annotation: Any) -> Any:
    """Return a citation of this wire: the one that there was, or OpenAI's in its shape."""
    if not isinstance(annotation, dict) or isinstance(annotation.get("citation"), dict):
        return annotation["citation"] if isinstance(annotation, dict) else annotation
    shown = annotation.get("url_citation")
    if not isinstance(shown, dict):
        return annotation
    return {
        "type": "web_search_result_location",
        "url": shown.get("url") or "",
        "title": shown.get("title"),
        "cited_text": shown.get("content") or "",
        "encrypted_index": "",
    }


def _image(url: str) -> dict[str, Any]:
    """Return an image that a model made; this wire itself has only those of prompts."""
    head, _, data = url.partition(";base64,")
    if data and head.startswith("data:"):
        source = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
    else:
        source = {"type": "url", "url": url}
    return {"type": "image", "source": source}
