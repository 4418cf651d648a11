"""OpenAI Responses answers, as our clients get them: events in, bytes out.

Items open and close one after another, each announced, told in pieces and told whole, as
OpenAI's SDKs put them together; the last event repeats all of them in one ``response``. Required
fields are those of the ``openai`` and ``openrouter`` SDKs (2026-10), ``cost`` and its details in
``usage`` are OpenRouter's. Where the SDKs want a number that nobody reported, it is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import msgspec

from backends.collect import ChatAnswer, Choice
from backends.types import (
    AnnotationDelta,
    AnswerHead,
    ChatRequest,
    Cost,
    Delta,
    Finish,
    FinishReason,
    ImageDelta,
    MessageStart,
    PartStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire.openai_reply import encode_error
from backends.wire.responses_frame import frame_of, usage_body
from backends.wire.responses_output import (
    Call,
    CustomCall,
    Image,
    Item,
    Message,
    TextPart,
    Thought,
    cite,
    thoughts_of,
    thoughts_text,
    tokens_of,
)

__all__ = ["ResponsesEncoder", "encode_answer", "encode_error"]

_encode = msgspec.json.Encoder().encode
_TEXT: Final = b"event: response.output_text.delta\ndata: "
_NUMBERED: Final = tuple(b'%d,"delta":' % number for number in range(2048))
"""What stands between prefix and text: a look into a table is half of what writing costs."""

_INCOMPLETE: Final[Mapping[FinishReason, str]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


class ResponsesEncoder:
    """Writes one answer as server-sent events, and keeps it for the last one."""

    def __init__(self, head: AnswerHead, request: ChatRequest) -> None:
        """Prepare what every response repeats."""
        self._head = head
        self._body = frame_of(head, request)
        self._number = 0
        self._opened = False
        self._items: list[Item] = []
        self._named: dict[str, Item] = {}
        self._open: Item | None = None
        self._call: Call | None = None
        self._waiting: dict[int, list[ToolCallDelta]] = {}
        self._calls: dict[int, Call] = {}
        self._prefix = b""
        """What precedes a text that needs no more than itself; empty where there is none."""
        self._pieces: list[str] = []
        self._tokens = bool(request.params.get("logprobs"))
        """Whether texts have log probabilities: asked for, or seen."""
        self._texts: list[TextPart] = []

        self._halves: list[dict[str, Any]] = []
        """Log probabilities that came before the text that they are of, or beside a call."""

        self._early: list[Mapping[str, Any]] = []
        """Citations that came before any text."""

        self._choice = -1
        """The one that is written: the first that spoke. A response has no others."""

    def open(self) -> bytes:
        """Announce the response."""
        self._opened = True
        response = {**self._body, "status": "in_progress", "output": []}
        return self._event("response.created", {"response": response}) + self._event(
            "response.in_progress", {"response": response}
        )

    def delta(self, event: Delta) -> bytes:
        """Return what one event becomes; a call waits until the one before it is whole."""
        prefix = self._prefix
        if prefix and type(event) is TextDelta and not event.index:
            text, number = event.text, self._number  # nearly every event of a stream
            self._pieces.append(text)
            self._number = number + 1
            between = _NUMBERED[number] if number < 2048 else b'%d,"delta":' % number
            return b"".join((prefix, between, _encode(text), b"}\n\n"))
        if self._choice < 0:
            self._choice = event.index
        return self._write(event) if event.index == self._choice else b""

    def _write(self, event: Delta) -> bytes:
        """Return what an event of the choice becomes."""
        match event:
            case TextDelta() if not event.text and not isinstance(self._open, Message):
                self._halves += tokens_of(event.logprobs)
                return b""
            case TextDelta() if not event.text and not tokens_of(event.logprobs):
                return b""
            case TextDelta():
                tokens = [*self._halves, *tokens_of(event.logprobs)]
                self._halves = []
                out, message = self._message("output_text")
                out += self._told(message, message.say(event.text, tokens))
                self._tokens = self._tokens or event.logprobs is not None
                if not self._tokens and not self._choice:
                    self._prefix, self._pieces = _text_prefix(message), message.pieces
                return out
            case RefusalDelta():
                out, message = self._message("refusal")
                return out + self._told(message, message.say(event.text, []))
            case AnnotationDelta():
                self._early += [entry for entry in event.annotations if isinstance(entry, dict)]
                return b"".join(self._told(*cited) for cited in cite(self._early, self._texts))
            case ReasoningDelta():
                return self._thought(event)
            case MessageStart():
                return self._close() + self._begin(Message(self._name("msg"), event.phase))
            case PartStart():
                self._prefix, said = b"", self._open
                return self._told(said, said.split()) if isinstance(said, Message) else b""
            case ImageDelta():
                return (
                    self._close()
                    + self._begin(Image(self._name("ig"), event.url))
                    + (self._close())
                )
            case ToolCallDelta():
                return self._piece(event)
            case _:
                raise AssertionError("a vector is no answer of a chat")

    def finish(self, finish: Finish, usage: Usage, cost: Cost) -> bytes:
        """Return the ends of what is open, and the whole response."""
        ends = {end.index: end.reason for end in finish.choices}
        reason = ends.get(self._choice, finish.choices[0].reason)
        out = self.flush(reason)
        body = self.response(reason, usage, cost, finish.extras)
        return out + self._event(f"response.{body['status']}", {"response": body})

    def error(self, error: Mapping[str, Any], usage: Usage | None, cost: Cost | None) -> bytes:
        """Return the end of a response that failed: what it has, and why.

        The error stands beside the response too, because several clients look only there.
        """
        out = b"" if self._opened else self.open()
        while self._waiting:
            out += self._next_call()
        code = "rate_limit_exceeded" if error.get("code") == 429 else "server_error"
        body = {
            **self._body,
            "status": "failed",
            "error": {"code": code, "message": error.get("message") or "the answer failed"},
            "output": [item.body(None if item.ended else "incomplete") for item in self._items],
        }
        if usage is not None and cost is not None:
            body["usage"] = usage_body(usage, cost)
        return out + self._event("response.failed", {"response": body, "error": error})

    def waiting(self) -> list[ToolCallDelta]:
        """Return the pieces of calls that wait for the end of the one before them."""
        return list(chain.from_iterable(self._waiting.values()))

    def flush(self, reason: FinishReason) -> bytes:
        """Close what is open, and send the calls that waited."""
        status = "incomplete" if reason in _INCOMPLETE else None
        out = b""
        if self._early:
            out, _ = self._message("output_text")
        out += self._close(status)
        if self._call is not None:
            out += self._end_call(status)
        while self._waiting:
            out += self._next_call() + self._end_call(status)
        return out

    def response(
        self, reason: FinishReason, usage: Usage, cost: Cost, extras: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the whole response after ``flush``."""
        why = _INCOMPLETE.get(reason)
        body = {
            **self._body,
            "status": "incomplete" if why else "completed",
            "incomplete_details": {"reason": why} if why else None,
            "completed_at": None if why else self._head.created_s,
            "output": [item.body() for item in self._items],
            "usage": usage_body(usage, cost),
        }
        return body | ({"provider_extras": {self._head.provider: extras}} if extras else {})

    def _event(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        number = self._number
        self._number += 1
        data = _encode({"type": kind, "sequence_number": number, **fields})
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    def _told(self, item: Item, told: list[tuple[str, dict[str, Any]]]) -> bytes:
        where = {"item_id": item.id, "output_index": item.position}
        return b"".join(self._event(kind, where | fields) for kind, fields in told)

    def _name(self, kind: str) -> str:
        return f"{kind}_{self._head.id}_{len(self._items)}"

    def _begin(self, item: Item) -> bytes:
        """Open an item; the one before it has been closed, or is a call that is not whole."""
        item.position = len(self._items)
        self._items.append(item)
        self._named[item.id] = item
        self._open = item
        added = {"output_index": item.position, "item": item.announced()}
        return self._event("response.output_item.added", added)

    def _close(self, status: str | None = None) -> bytes:
        """Close the open item that is no call, and a call that is whole."""
        self._prefix = b""
        out = b""
        if self._call is not None and self._call.whole:
            out = self._end_call()
        item, self._open = self._open, None
        if item is None or item is self._call:
            return out
        return out + self._done(item, status)

    def _done(self, item: Item, status: str | None = None) -> bytes:
        item.ended = True
        if status is not None:
            item.status = status
        done = {"output_index": item.position, "item": item.body()}
        return self._told(item, item.end()) + self._event("response.output_item.done", done)

    def _message(self, part: str) -> tuple[bytes, Message]:
        """Return the open message with a part of this type, and what opened it."""
        out = b""
        message = self._open
        if not isinstance(message, Message):
            out = self._close()
            message = Message(self._name("msg"))
            out += self._begin(message)
        self._prefix = b""
        out += self._told(message, message.need(part))
        last = self._texts[-1] if self._texts else None
        if part == "output_text" and (last is None or last[:2] != (message, message.part)):
            before = 0 if last is None else last[2] + last[0].length(last[1])
            self._texts.append((message, message.part, before))
            out += b"".join(self._told(*cited) for cited in cite(self._early, self._texts))
        return out, message

    def _thought(self, event: ReasoningDelta) -> bytes:
        out = b""
        for detail in thoughts_of(event):
            thought = self._open
            if not isinstance(thought, Thought) or not thought.takes(detail):
                name = detail.get("id")
                name = name if name and isinstance(name, str) else ""
                known = self._named.get(name)
                if isinstance(known, Thought) and not thoughts_text(detail):
                    known.late(detail)
                    continue
                out += self._close()
                thought = Thought(name if name and known is None else self._name("rs"), detail)
                out += self._begin(thought)
            out += self._told(thought, thought.say(detail))
        return out

    def _piece(self, event: ToolCallDelta) -> bytes:
        """Send a piece of the call that is open; others wait for its end."""
        self._halves = []
        known = self._calls.get(event.call_index)
        if known is None:
            self._waiting.setdefault(event.call_index, []).append(event)
            out = self._close()
        elif known is self._call:
            out = self._told(known, known.say(event))
        else:
            return b""  # whole, and its end was sent: only blanks can follow
        while self._waiting and (self._call is None or self._call.whole):
            out += self._close() + self._next_call()
        return out

    def _next_call(self) -> bytes:
        """Open the call that waited longest, and send its pieces."""
        place = next(iter(self._waiting))
        pieces = self._waiting.pop(place)
        first = pieces[0]
        kind = CustomCall if first.custom else Call
        call = kind(self._name(kind.prefix), first.id or "", first.name or "")
        self._calls[place] = self._call = call
        begun = self._begin(call)
        return begun + b"".join([self._told(call, call.say(piece)) for piece in pieces])

    def _end_call(self, status: str | None = None) -> bytes:
        """Tell the end of the open call; ``status`` is that of one whose arguments were cut."""
        call, self._call = self._call, None
        assert call is not None
        if self._open is call:
            self._open = None
        return self._done(call, None if call.whole else status)


def encode_answer(
    head: AnswerHead, request: ChatRequest, answer: ChatAnswer, usage: Usage, cost: Cost
) -> bytes:
    """Return the body of a whole answer: the last event's response, by the same way."""
    encoder = ResponsesEncoder(head, request)
    choice = answer.choices[0] if answer.choices else Choice(0)
    for event in choice.events:
        encoder.delta(event)
    encoder.flush(choice.reason)
    return _encode(encoder.response(choice.reason, usage, cost, answer.extras))


def _text_prefix(message: Message) -> bytes:
    where = {"item_id": message.id, "output_index": message.position}
    fields = {"type": "response.output_text.delta", **where}
    rest = _encode(fields | {"content_index": message.part, "logprobs": []})
    return _TEXT + rest[:-1] + b',"sequence_number":'
