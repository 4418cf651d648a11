"""OpenAI Chat Completions answers, as our clients get them: events in, bytes out.

The shape is OpenRouter's (its SDKs validate strictly): role and content on every delta,
``provider`` and ``native_finish_reason``, ``usage`` with ``cost`` always, and one closing
chunk that carries finish reason and usage together (design decision 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import msgspec

from backends.collect import ChatAnswer, Choice
from backends.types import (
    AnnotationDelta,
    AnswerHead,
    ChatRequest,
    Content,
    Cost,
    Delta,
    Finish,
    ImageDelta,
    MessageStart,
    PartStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    VectorDelta,
)

DONE = b"data: [DONE]\n\n"

_NANODOLLARS = 10**9
_PLAIN_END = b'},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}\n\n'
_LISTS = frozenset({"images", "annotations", "reasoning_details"})
_encode = msgspec.json.Encoder().encode


def usd(nanodollars: int) -> msgspec.Raw:
    """Write nano-dollars as a JSON number in dollars, exactly, without a float."""
    sign = "-" if nanodollars < 0 else ""
    whole, rest = divmod(abs(nanodollars), _NANODOLLARS)
    digits = f"{rest:09d}".rstrip("0")
    return msgspec.Raw(f"{sign}{whole}{'.' if digits else ''}{digits}".encode())


def usage_body(usage: Usage, cost: Cost) -> dict[str, Any]:
    """Return the ``usage`` object. Kinds that nobody reported are left out, not zero."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    prompt = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    if details := {name: count for name, count in prompt.items() if count is not None}:
        body["prompt_tokens_details"] = details
    if usage.reasoning_tokens is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    body["cost"] = usd(cost.charge_nanodollars)
    body["is_byok"] = False
    body["cost_details"] = {
        "upstream_inference_cost": usd(cost.upstream_nanodollars),
        "upstream_inference_prompt_cost": usd(cost.upstream_prompt_nanodollars),
        "upstream_inference_completions_cost": usd(cost.upstream_completion_nanodollars),
    }
    return body


class ChunkEncoder:
    """Writes one answer as server-sent events."""

    __slots__ = ("_counts", "_head", "_prefix", "_text")

    def __init__(self, head: AnswerHead, request: ChatRequest) -> None:
        """Prepare what every chunk repeats."""
        del request  # an answer of this dialect repeats nothing of it
        self._head = _head_fields(head, "chat.completion.chunk")
        self._prefix = b"data: " + _encode(self._head)[:-1] + b',"choices":['
        self._text = self._prefix + b'{"index":0,"delta":{"role":"assistant","content":'
        self._counts: dict[tuple[int, str], int] = {}

    def open(self) -> bytes:
        """Nothing precedes the first chunk."""
        return b""

    def delta(self, event: Delta) -> bytes:
        """Return the chunk of one content event."""
        logprobs = None
        if isinstance(event, TextDelta):
            if not event.index and event.logprobs is None:  # nearly every event of a stream
                return b"".join((self._text, _encode(event.text), _PLAIN_END))
            logprobs = event.logprobs
        if isinstance(event, MessageStart | PartStart):
            return b""  # a chat's answer is one message of one part
        choice = {
            "index": event.index,
            "delta": self._numbered(event.index, _delta_body(event)),
            "finish_reason": None,
            "native_finish_reason": None,
            "logprobs": logprobs,
        }
        return self._prefix + _encode(choice) + b"]}\n\n"

    def finish(self, finish: Finish, usage: Usage, cost: Cost) -> bytes:
        """Return the closing chunk and the stream's end marker."""
        choices = [
            {
                "index": end.index,
                "delta": {"role": "assistant", "content": ""},
                "finish_reason": end.reason,
                "native_finish_reason": end.raw_reason,
                "logprobs": None,
            }
            for end in finish.choices
        ]
        rest = {"choices": choices, "usage": usage_body(usage, cost)}
        if finish.extras:
            rest["provider_extras"] = {self._head["provider"]: finish.extras}
        return self._chunk(rest) + DONE

    def error(self, error: Mapping[str, Any], usage: Usage | None, cost: Cost | None) -> bytes:
        """Return the chunk that ends a stream which failed. No end marker follows it."""
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "finish_reason": "error",
            "native_finish_reason": None,
            "logprobs": None,
        }
        rest: dict[str, Any] = {"error": error, "choices": [choice]}
        if usage is not None and cost is not None:
            rest["usage"] = usage_body(usage, cost)
        return self._chunk(rest)

    def waiting(self) -> tuple[Delta, ...]:
        """Nothing waits: every event is written at once."""
        return ()

    def _numbered(self, choice: int, body: dict[str, Any]) -> dict[str, Any]:
        """Give entries of lists the ``index`` by which OpenAI's SDKs put pieces together.

        They give up a stream whose second piece of a list has none.
        """
        for name in _LISTS & body.keys():
            numbered = []
            for entry in body[name]:
                made, at = entry, self._counts.get((choice, name), 0)
                if isinstance(entry, dict):
                    if not isinstance(entry.get("index"), int):
                        made = {**entry, "index": at}
                    self._counts[choice, name] = max(at, made["index"] + 1)
                numbered.append(made)
            body[name] = numbered
        return body

    def _chunk(self, rest: Mapping[str, Any]) -> bytes:
        return b"data: " + _encode({**self._head, **rest}) + b"\n\n"


def encode_answer(
    head: AnswerHead, request: ChatRequest, answer: ChatAnswer, usage: Usage, cost: Cost
) -> bytes:
    """Return the body of a whole answer."""
    del request
    body = _head_fields(head, "chat.completion")
    body |= {
        "system_fingerprint": None,
        "choices": [_choice_body(choice) for choice in answer.choices],
        "usage": usage_body(usage, cost),
    }
    if answer.extras:
        body["provider_extras"] = {head.provider: answer.extras}
    return _encode(body)


def encode_error(error: Mapping[str, Any]) -> bytes:
    """Return the body of an error answer."""
    return _encode({"error": error})


def _head_fields(head: AnswerHead, kind: str) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": kind,
        "created": head.created_s,
        "model": head.model,
        "provider": head.provider,
    }


def _delta_body(event: Content | AnnotationDelta) -> dict[str, Any]:
    match event:
        case TextDelta():
            return {"role": "assistant", "content": event.text}
        case ReasoningDelta():
            body: dict[str, Any] = {"role": "assistant", "content": "", "reasoning": event.text}
            return body if event.details is None else body | {"reasoning_details": event.details}
        case RefusalDelta():
            return {"role": "assistant", "content": "", "refusal": event.text}
        case ImageDelta():
            image = {"type": "image_url", "image_url": {"url": event.url}}
            return {"role": "assistant", "content": "", "images": [image]}
        case AnnotationDelta():
            return {"role": "assistant", "content": "", "annotations": event.annotations}
        case VectorDelta():
            raise AssertionError("a vector is no answer of a chat")
        case ToolCallDelta():
            call: dict[str, Any] = {"index": event.call_index}
            if event.id is not None:
                call["id"] = event.id
            call |= _called(event.arguments, event.name, custom=event.custom)
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        case _:
            assert_never(event)


def _called(arguments: str, name: str | None, *, custom: bool) -> dict[str, Any]:
    """Return what was called, under the name of its type."""
    kind, said = ("custom", "input") if custom else ("function", "arguments")
    return {"type": kind, kind: {said: arguments} | ({} if name is None else {"name": name})}


def _choice_body(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if choice.calls and not choice.text else choice.text,
        "refusal": choice.refusal or None,
        "reasoning": choice.reasoning or None,
    }
    if choice.details:
        message["reasoning_details"] = choice.details
    if choice.images:
        message["images"] = [
            {"type": "image_url", "image_url": {"url": url}} for url in choice.images
        ]
    if choice.annotations:
        message["annotations"] = choice.annotations
    if choice.calls:
        message["tool_calls"] = [
            {"id": call.id, **_called(call.arguments, call.name, custom=call.custom)}
            for call in choice.calls
        ]
    return {
        "index": choice.index,
        "message": message,
        "finish_reason": choice.reason,
        "native_finish_reason": choice.raw_reason,
        "logprobs": _logprobs(choice),
    }


def _logprobs(choice: Choice) -> dict[str, Any] | None:
    """Return the log probabilities of a choice: of its text, and of its refusal if it has any."""
    if not choice.refusal_logprobs:
        return {"content": choice.logprobs} if choice.logprobs else None
    return {"content": choice.logprobs or None, "refusal": choice.refusal_logprobs}
