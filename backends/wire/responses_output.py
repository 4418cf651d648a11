"""The items of a Responses answer while they grow: what each tells of itself, and what it is.

``say`` and its like return events as (type, fields) without the item's place, which the encoder
adds. (OpenAI's API reference, Responses streaming events, read 2026-11.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from backends.types import ReasoningDelta, ToolCallDelta
from backends.wire.calls import is_whole
from backends.wire.details import WORDS, merge_details
from backends.wire.responses_items import UNKNOWN

Told = list[tuple[str, dict[str, Any]]]


class Item(ABC):
    """One item of an answer."""

    def __init__(self, name: str) -> None:
        """``name`` is its id."""
        self.id = name
        self.position = 0
        self.status = "completed"
        self.ended = False

    @abstractmethod
    def body(self, status: str | None = None) -> dict[str, Any]:
        """Return the item as it is now."""

    def announced(self) -> dict[str, Any]:
        """Return the item before anything of it was told."""
        return self.body("in_progress")

    def end(self) -> Told:
        """Tell the end of what is open in it."""
        return []


class Message(Item):
    """What the assistant says: parts of text and refusal."""

    def __init__(self, name: str, phase: str | None = None) -> None:
        """See ``Item``; ``phase`` says what the message is for."""
        super().__init__(name)
        self._phase = {} if phase is None else {"phase": phase}
        self._parts: list[dict[str, Any]] = []
        self._whole = False
        """The last part has ended, and was told."""

        self.pieces: list[str] = []
        """Of the open part; the encoder adds those that it tells itself."""

    @property
    def part(self) -> int:
        """The place of the part that is open."""
        return len(self._parts) - 1

    def need(self, kind: str) -> Told:
        """Open a part of this type if it is not open."""
        if self._parts and not self._whole and self._parts[-1]["type"] == kind:
            return []
        told = self.split()
        self._whole = False
        part: dict[str, Any] = {"type": kind, "refusal": ""}
        if kind == "output_text":
            part = {"type": kind, "text": "", "annotations": [], "logprobs": []}
        self._parts.append(part)
        shown = {**part, **({"annotations": [], "logprobs": []} if "text" in part else {})}
        added = {"content_index": self.part, "part": shown}
        return [*told, ("response.content_part.added", added)]

    def say(self, text: str, tokens: list[dict[str, Any]]) -> Told:
        """Tell a piece of the open part; ``tokens`` are its log probabilities."""
        part = self._parts[-1]
        self.pieces.append(text)
        fields: dict[str, Any] = {"content_index": self.part, "delta": text}
        if "refusal" in part:
            return [("response.refusal.delta", fields)]
        fields["logprobs"] = tokens
        part["logprobs"].extend(tokens)
        return [("response.output_text.delta", fields)]

    def length(self, part: int) -> int:
        """Return how many characters a part of text has that has ended."""
        return len(self._parts[part]["text"])

    def annotate(self, annotation: Mapping[str, Any], part: int, before: int) -> Told:
        """Tell a citation of a part of text, flat as this wire has it.

        ``before`` characters of the answer's text precede the part; here it is counted from there.
        """
        flat = dict(annotation)
        if isinstance(cited := flat.pop("url_citation", None), dict):
            flat = {"type": "url_citation", **cited}
        if flat.get("type") == "url_citation":
            flat = {"title": "", "url": "", "start_index": 0, "end_index": 0, **flat}
            for name in ("start_index", "end_index"):
                if isinstance(flat[name], int):
                    flat[name] = max(0, flat[name] - before)
        annotations = self._parts[part]["annotations"]
        annotations.append(flat)
        place = {"content_index": part, "annotation_index": len(annotations) - 1}
        return [("response.output_text.annotation.added", {**place, "annotation": flat})]

    def end(self) -> Told:
        """See ``Item``."""
        return self.split()

    def split(self) -> Told:
        """End the open part: what is said next is of another."""
        if not self._parts or self._whole:
            return []
        self._whole = True
        part = self._settled()
        place = {"content_index": self.part}
        done: dict[str, Any] = {**place, "refusal": part.get("refusal")}
        kind = "response.refusal.done"
        if "text" in part:
            done = {**place, "text": part["text"], "logprobs": part["logprobs"]}
            kind = "response.output_text.done"
        return [(kind, done), ("response.content_part.done", {**place, "part": part})]

    def _settled(self) -> dict[str, Any]:
        """Put the pieces of the open part into it."""
        part = self._parts[-1]
        field = "text" if "text" in part else "refusal"
        part[field] += "".join(self.pieces)
        self.pieces.clear()
        return part

    def body(self, status: str | None = None) -> dict[str, Any]:
        """See ``Item``."""
        if self._parts:
            self._settled()
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "status": status or self.status,
            "content": self._parts,
            **self._phase,
        }


TextPart = tuple[Message, int, int]
"""A part of text by message and place, and how many characters of text precede it."""


class Thought(Item):
    """Reasoning: summaries, text, and what a vendor wants back."""

    def __init__(self, name: str, first: Mapping[str, Any]) -> None:
        """See ``Item``; ``first`` says whose reasoning it is."""
        super().__init__(name)
        self._key = _key(first)
        self._fields: dict[str, Any] = {"format": first.get("format") or UNKNOWN}
        self._parts: dict[str, list[list[str]]] = {"summary": [], "text": []}
        self._last: tuple[str, Any] | None = None

    def takes(self, detail: Mapping[str, Any]) -> bool:
        """Whether a detail belongs to this item."""
        return _key(detail) == self._key

    def late(self, detail: Mapping[str, Any]) -> None:
        """Take what came after the item's end, and is told with the answer's: the last counts."""
        for field, name in (("signature", "signature"), ("data", "encrypted_content")):
            if isinstance(detail.get(field), str):
                self._fields[name] = detail[field]

    def say(self, detail: Mapping[str, Any]) -> Told:
        """Tell a piece."""
        if isinstance(detail.get("signature"), str):
            self._fields["signature"] = detail["signature"]
        if detail.get("type") == "reasoning.encrypted":
            data = self._fields.get("encrypted_content") or ""
            self._fields["encrypted_content"] = data + str(detail.get("data") or "")
            return []
        field, text = WORDS.get(str(detail.get("type"))), thoughts_text(detail)
        if field is None or not isinstance(text, str) or not text:
            return []
        told = self._open(field, detail.get("index"))
        parts = self._parts[field]
        parts[-1].append(text)
        at = len(parts) - 1
        if field == "summary":
            piece = {"summary_index": at, "delta": text}
            return [*told, ("response.reasoning_summary_text.delta", piece)]
        return [*told, ("response.reasoning_text.delta", {"content_index": at, "delta": text})]

    def _open(self, field: str, index: Any) -> Told:
        """Open a part unless it is the one that is open."""
        if self._last == (field, index):
            return []
        told = self.end()
        self._last = (field, index)
        self._parts[field].append([])
        at = len(self._parts[field]) - 1
        if field == "summary":
            part = {"type": "summary_text", "text": ""}
            added = {"summary_index": at, "part": part}
            return [*told, ("response.reasoning_summary_part.added", added)]
        part = {"type": "reasoning_text", "text": ""}
        return [*told, ("response.content_part.added", {"content_index": at, "part": part})]

    def end(self) -> Told:
        """See ``Item``."""
        if self._last is None:
            return []
        field = self._last[0]
        self._last = None
        at = len(self._parts[field]) - 1
        text = "".join(self._parts[field][-1])
        if field == "summary":
            part = {"type": "summary_text", "text": text}
            return [
                ("response.reasoning_summary_text.done", {"summary_index": at, "text": text}),
                ("response.reasoning_summary_part.done", {"summary_index": at, "part": part}),
            ]
        part = {"type": "reasoning_text", "text": text}
        return [
            ("response.reasoning_text.done", {"content_index": at, "text": text}),
            ("response.content_part.done", {"content_index": at, "part": part}),
        ]

    def body(self, status: str | None = None) -> dict[str, Any]:
        """See ``Item``."""
        summary, content = self._parts["summary"], self._parts["text"]
        made: dict[str, Any] = {
            "id": self.id,
            "type": "reasoning",
            "status": status or self.status,
            "summary": [{"type": "summary_text", "text": "".join(part)} for part in summary],
            **self._fields,
        }
        if content:
            made["content"] = [{"type": "reasoning_text", "text": "".join(p)} for p in content]
        return made


class Call(Item):
    """A call of a function."""

    prefix = "fc"
    kind = "function_call"
    told = "response.function_call_arguments"
    words = "arguments"
    nothing = "{}"

    def __init__(self, name: str, call_id: str, function: str) -> None:
        """See ``Item``."""
        super().__init__(name)
        self._call_id = call_id
        self._function = function
        self._pieces: list[str] = []
        self._read = (0, False)
        """After how many pieces it was looked whether that was all, and what was found."""

    @property
    def whole(self) -> bool:
        """Whether its arguments are complete; read once for each piece, however often asked."""
        if self._read[0] != len(self._pieces):
            self._read = (len(self._pieces), is_whole(self._pieces))
        return self._read[1]

    def say(self, piece: ToolCallDelta) -> Told:
        """Tell a piece of the arguments."""
        if not piece.arguments:
            return []
        self._pieces.append(piece.arguments)
        return [(f"{self.told}.delta", {"delta": piece.arguments})]

    def end(self) -> Told:
        """See ``Item``."""
        self._pieces = self._pieces or [self.nothing]
        done = {"name": self._function, self.words: "".join(self._pieces)}
        return [(f"{self.told}.done", done)]

    def body(self, status: str | None = None) -> dict[str, Any]:
        """See ``Item``."""
        return {
            "id": self.id,
            "type": self.kind,
            "status": status or self.status,
            "call_id": self._call_id,
            "name": self._function,
            self.words: "".join(self._pieces),
        }


class CustomCall(Call):
    """A call of a custom tool: its input is any text, and an empty piece of it the end."""

    prefix = "ctc"
    kind = "custom_tool_call"
    told = "response.custom_tool_call_input"
    words = "input"
    nothing = ""
    whole = False

    def say(self, piece: ToolCallDelta) -> Told:
        """See ``Call``."""
        self.whole = self.whole or not (piece.arguments or piece.name)
        return super().say(piece)


class Image(Item):
    """An image that the model made."""

    def __init__(self, name: str, url: str) -> None:
        """See ``Item``; a ``data:`` URL is told as its base64."""
        super().__init__(name)
        head, comma, data = url.partition(",")
        self._result = data if comma and head.startswith("data:") else url

    def body(self, status: str | None = None) -> dict[str, Any]:
        """See ``Item``."""
        made = {"id": self.id, "type": "image_generation_call", "status": status or self.status}
        return {**made, "result": None if status == "in_progress" else self._result}


def thoughts_of(event: ReasoningDelta) -> list[dict[str, Any]]:
    """Return the details of a piece of reasoning; bare text is one of its own."""
    given = event.details if isinstance(event.details, list) else []
    details: list[Any] = []
    merge_details(details, (detail for detail in given if isinstance(detail, dict)))
    if event.text and not any(detail.get("type") in WORDS for detail in details):
        details.insert(0, {"type": "reasoning.text", "text": event.text})
    return details


def _key(detail: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what pieces of one item share."""
    name = detail.get("id")
    return detail.get("format"), detail.get("index") if name is None else name


def cite(early: list[Mapping[str, Any]], texts: Sequence[TextPart]) -> Iterator[tuple[Item, Told]]:
    """Yield what tells each citation, of the part of text in which it begins.

    Where there is no text yet, citations stay in ``early``.
    """
    told = early[:] if texts else []
    del early[: len(told)]
    for entry in told:
        link = entry.get("url_citation")
        start = link.get("start_index") if isinstance(link, dict) else None
        place = bisect_right(texts, start, key=itemgetter(2)) if isinstance(start, int) else 0
        message, part, before = texts[max(place, 1) - 1 if isinstance(start, int) else -1]
        yield message, message.annotate(entry, part, before)


def thoughts_text(detail: Mapping[str, Any]) -> Any:
    """Return the words of a detail of reasoning, if it has any."""
    field = WORDS.get(str(detail.get("type")))
    return detail.get(field) if field else None


def tokens_of(logprobs: Any) -> list[dict[str, Any]]:
    """Return the tokens of a chat's ``logprobs`` with every field that SDKs require."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [
        token | {"top_logprobs": [rival for _, rival in _entries(entry.get("top_logprobs"))]}
        for entry, token in _entries(content)
    ]


def _entries(content: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found = (
        [entry for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []
    )
    return [(entry, _token(entry)) for entry in found]


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    token, logprob = entry.get("token") or "", entry.get("logprob") or 0.0
    return {"token": token, "logprob": logprob, "bytes": entry.get("bytes") or []}
