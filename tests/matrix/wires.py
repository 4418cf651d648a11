"""Ten upstream wires that say the same things, each in its own bytes.

Written from the vendors' descriptions of their wires (read 2026-11), not from our codecs. A
`Wire` says how an endpoint is configured, and what a scenario's body looks like there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests import aws

PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS, THOUGHT_TOKENS = 11, 4, 5, 2
TEXT = ("Hello ", "wörld")
THOUGHTS = ("Think ", "hard")
SIGNATURE = "c2lnbmVk"
CALLS = (("call_a", "get_weather", '{"city":"Köln"}'), ("call_b", "get_time", ""))
"""Id, name and arguments; the second call has none."""

SCENARIOS = ("text", "tools", "reasoning")
LATE = "the model broke down"


@dataclass(frozen=True)
class Wire:
    """One upstream wire."""

    name: str
    endpoint: dict[str, Any]
    """The endpoint's configuration, without address, price and provider."""

    bodies: dict[str, list[bytes]]
    """A complete answer per scenario, in pieces; a scenario that is absent has no form here."""

    start: list[bytes]
    """An answer's beginning up to its first text, which is ``TEXT[0]``."""

    broken: bytes
    """What follows ``start`` when the upstream fails in its own words."""

    refusal: bytes = b'{"error": {"message": "slow down", "type": "t", "code": "c"}}'
    root: str = ""
    """What stands between the server's address and the wire's own path."""

    content_type: str = "text/event-stream"
    exact: bool = True
    """Whether it reports usage in full."""

    cached: bool = True
    signed: bool = False
    """Whether its reasoning is signed."""

    env: dict[str, str] = field(default_factory=dict)


def sse(*documents: Any, named: bool = False) -> list[bytes]:
    """Frame documents as events, with their type as the event's name where a wire does so."""
    pieces = []
    for document in documents:
        text = document if isinstance(document, str) else json.dumps(document)
        name = f"event: {document['type']}\n" if named else ""
        pieces.append(f"{name}data: {text}\n\n".encode())
    return pieces


def lines(*documents: Any) -> list[bytes]:
    """Frame documents as lines."""
    return [json.dumps(document).encode() + b"\n" for document in documents]


def _chat() -> Wire:
    def delta(**fields: Any) -> dict[str, Any]:
        return {"id": "c1", "model": "up", "choices": [{"index": 0, "delta": fields}]}

    def end(reason: str) -> list[Any]:
        last = {"index": 0, "delta": {}, "finish_reason": reason}
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        }
        return [
            {"id": "c1", "choices": [last]},
            {"id": "c1", "choices": [], "usage": usage},
            "[DONE]",
        ]

    calls = [
        delta(
            tool_calls=[
                {"index": n, "id": i, "type": "function", "function": {"name": f, "arguments": a}}
            ]
        )
        for n, (i, f, a) in enumerate(CALLS)
    ]
    return Wire(
        "chat",
        {"backend": "openai"},
        {
            "text": sse(*(delta(content=t) for t in TEXT), *end("stop")),
            "tools": sse(*calls, *end("tool_calls")),
            "reasoning": sse(
                *(delta(reasoning_content=t) for t in THOUGHTS), delta(content="Done"), *end("stop")
            ),
        },
        sse(delta(role="assistant", content=""), delta(content=TEXT[0])),
        sse({"error": {"message": LATE, "code": 502}})[0],
        root="/v1",
    )


def _completions() -> Wire:
    def chunk(text: str, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        return {"id": "p1", "object": "text_completion", "model": "up", "choices": [choice]}

    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }
    end = [chunk("", "stop"), {"id": "p1", "choices": [], "usage": usage}, "[DONE]"]
    return Wire(
        "completions",
        {"backend": "openai", "api": "completions"},
        {"text": sse(*(chunk(t) for t in TEXT), *end)},
        sse(chunk(TEXT[0])),
        sse({"error": {"message": LATE, "code": 502}})[0],
        root="/v1",
    )


def _responses() -> Wire:
    usage = {
        "input_tokens": PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": COMPLETION_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    }

    def response(status: str, output: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
        return {
            "id": "resp_1",
            "object": "response",
            "model": "up",
            "status": status,
            "output": list(output),
            **more,
        }

    def message(texts: Sequence[str], place: int) -> tuple[list[Any], Any]:
        at = {"output_index": place, "item_id": "msg_1", "content_index": 0}
        part = {"type": "output_text", "text": "".join(texts), "annotations": []}
        item = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }
        events = [
            {
                "type": "response.output_item.added",
                "output_index": place,
                "item": item | {"content": [], "status": "in_progress"},
            },
            {"type": "response.content_part.added", **at, "part": part | {"text": ""}},
            *({"type": "response.output_text.delta", **at, "delta": text} for text in texts),
            {"type": "response.output_text.done", **at, "text": "".join(texts)},
            {"type": "response.output_item.done", "output_index": place, "item": item},
        ]
        return events, item

    def call(place: int) -> tuple[list[Any], Any]:
        name, function, arguments = CALLS[place]
        item = {
            "type": "function_call",
            "id": f"fc_{place}",
            "call_id": name,
            "name": function,
            "arguments": arguments,
            "status": "completed",
        }
        at = {"output_index": place, "item_id": f"fc_{place}"}
        events = [
            {
                "type": "response.output_item.added",
                "output_index": place,
                "item": item | {"arguments": "", "status": "in_progress"},
            },
            *(
                {"type": "response.function_call_arguments.delta", **at, "delta": piece}
                for piece in (arguments[:4], arguments[4:])
                if piece
            ),
            {"type": "response.function_call_arguments.done", **at, "arguments": arguments},
            {"type": "response.output_item.done", "output_index": place, "item": item},
        ]
        return events, item

    def thought() -> tuple[list[Any], Any]:
        item = {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "".join(THOUGHTS)}],
            "encrypted_content": SIGNATURE,
        }
        at = {"output_index": 0, "item_id": "rs_1", "summary_index": 0}
        events = [
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": item | {"summary": [], "encrypted_content": ""},
            },
            *(
                {"type": "response.reasoning_summary_text.delta", **at, "delta": text}
                for text in THOUGHTS
            ),
            {"type": "response.output_item.done", "output_index": 0, "item": item},
        ]
        return events, item

    def body(*parts: tuple[list[Any], Any]) -> list[bytes]:
        done = response("completed", [item for _, item in parts], usage=usage)
        return sse(
            {"type": "response.created", "response": response("in_progress")},
            *(event for events, _ in parts for event in events),
            {"type": "response.completed", "response": done},
            named=True,
        )

    failed = response("failed", error={"code": "server_error", "message": LATE})
    beginning = message(TEXT[:1], 0)[0][:3]
    return Wire(
        "responses",
        {"backend": "openai", "api": "responses"},
        {
            "text": body(message(TEXT, 0)),
            "tools": body(call(0), call(1)),
            "reasoning": body(thought(), message(["Done"], 1)),
        },
        sse(
            {"type": "response.created", "response": response("in_progress")},
            *beginning,
            named=True,
        ),
        sse({"type": "response.failed", "response": failed}, named=True)[0],
        root="/v1",
        signed=True,
    )


def _messages_events(scenario: str) -> list[Any]:
    usage = {
        "input_tokens": PROMPT_TOKENS - CACHED_TOKENS,
        "cache_read_input_tokens": CACHED_TOKENS,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1,
    }
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "up",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    events: list[Any] = [{"type": "message_start", "message": message}, {"type": "ping"}]

    def block(place: int, start: dict[str, Any], *deltas: dict[str, Any]) -> None:
        events.append({"type": "content_block_start", "index": place, "content_block": start})
        events.extend({"type": "content_block_delta", "index": place, "delta": d} for d in deltas)
        events.append({"type": "content_block_stop", "index": place})

    reason = "end_turn"
    if scenario == "text":
        block(0, {"type": "text", "text": ""}, *({"type": "text_delta", "text": t} for t in TEXT))
    elif scenario == "tools":
        reason = "tool_use"
        for place, (name, function, arguments) in enumerate(CALLS):
            pieces = [
                {"type": "input_json_delta", "partial_json": p}
                for p in ("", arguments[:4], arguments[4:])
                if p or not arguments
            ]
            block(place, {"type": "tool_use", "id": name, "name": function, "input": {}}, *pieces)
    else:
        block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            *({"type": "thinking_delta", "thinking": t} for t in THOUGHTS),
            {"type": "signature_delta", "signature": SIGNATURE},
        )
        block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Done"})
    delta = {"stop_reason": reason, "stop_sequence": None}
    events.append(
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": COMPLETION_TOKENS}}
    )
    events.append({"type": "message_stop"})
    return events


def _messages() -> Wire:
    error = {"type": "error", "error": {"type": "api_error", "message": LATE}}
    return Wire(
        "messages",
        {"backend": "anthropic"},
        {name: sse(*_messages_events(name), named=True) for name in SCENARIOS},
        sse(*_messages_events("text")[:4], named=True),
        sse(error, named=True)[0],
        b'{"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}',
        signed=True,
    )


def _gemini() -> Wire:
    def chunk(*parts: Any, reason: str | None = None, thought: int = 0) -> dict[str, Any]:
        candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
        document: dict[str, Any] = {
            "candidates": [candidate],
            "modelVersion": "up",
            "responseId": "g1",
        }
        if reason:
            candidate["finishReason"] = reason
            document["usageMetadata"] = {
                "promptTokenCount": PROMPT_TOKENS,
                "cachedContentTokenCount": CACHED_TOKENS,
                "candidatesTokenCount": COMPLETION_TOKENS - thought,
                "thoughtsTokenCount": thought,
                "totalTokenCount": PROMPT_TOKENS + COMPLETION_TOKENS,
            }
        return document

    def call(name: str, function: str, arguments: str) -> dict[str, Any]:
        return {
            "functionCall": {"id": name, "name": function, "args": json.loads(arguments or "{}")}
        }

    def crlf(*documents: Any) -> list[bytes]:
        return [piece.replace(b"\n\n", b"\r\n\r\n") for piece in sse(*documents)]

    late = {"error": {"code": 500, "message": LATE, "status": "INTERNAL"}}
    slow = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}
    return Wire(
        "gemini",
        {"backend": "gemini"},
        {
            "text": crlf(chunk({"text": TEXT[0]}), chunk({"text": TEXT[1]}, reason="STOP")),
            "tools": crlf(chunk(*(call(*c) for c in CALLS), reason="STOP")),
            "reasoning": crlf(
                *(chunk({"text": t, "thought": True}) for t in THOUGHTS),
                chunk(
                    {"text": "Done", "thoughtSignature": SIGNATURE},
                    reason="STOP",
                    thought=THOUGHT_TOKENS,
                ),
            ),
        },
        crlf(chunk({"text": TEXT[0]})),
        json.dumps(late, indent=2).encode(),
        json.dumps(slow).encode(),
        signed=True,
    )


def _converse() -> Wire:
    def event(name: str, document: Any) -> bytes:
        return aws.event(name, document | {"p": "abcd"})

    def block(place: int, *deltas: Any, start: Any = None) -> list[bytes]:
        pieces = (
            []
            if start is None
            else [event("contentBlockStart", {"start": start, "contentBlockIndex": place})]
        )
        pieces += [
            event("contentBlockDelta", {"delta": d, "contentBlockIndex": place}) for d in deltas
        ]
        return [*pieces, event("contentBlockStop", {"contentBlockIndex": place})]

    usage = {
        "inputTokens": PROMPT_TOKENS - CACHED_TOKENS,
        "cacheReadInputTokens": CACHED_TOKENS,
        "outputTokens": COMPLETION_TOKENS,
        "totalTokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    }

    def body(blocks: list[bytes], reason: str = "end_turn") -> list[bytes]:
        return [
            event("messageStart", {"role": "assistant"}),
            *blocks,
            event("messageStop", {"stopReason": reason}),
            event("metadata", {"usage": usage, "metrics": {"latencyMs": 7}}),
        ]

    calls = []
    for place, (name, function, arguments) in enumerate(CALLS):
        pieces = [{"toolUse": {"input": p}} for p in (arguments[:4], arguments[4:]) if p]
        calls += block(place, *pieces, start={"toolUse": {"toolUseId": name, "name": function}})
    thoughts = block(
        0,
        *({"reasoningContent": {"text": t}} for t in THOUGHTS),
        {"reasoningContent": {"signature": SIGNATURE}},
    )
    text = block(0, *({"text": t} for t in TEXT))
    return Wire(
        "bedrock",
        {"backend": "bedrock", "region": "us-east-1"},
        {
            "text": body(text),
            "tools": body(calls, "tool_use"),
            "reasoning": body([*thoughts, *block(1, {"text": "Done"})]),
        },
        [event("messageStart", {"role": "assistant"}), text[0]],
        aws.exception("modelStreamErrorException", LATE),
        b'{"message": "slow down"}',
        content_type="application/vnd.amazon.eventstream",
        signed=True,
    )


def _invoke() -> Wire:
    return Wire(
        "bedrock-invoke",
        {"backend": "bedrock", "region": "us-east-1", "api": "invoke", "maker": "anthropic"},
        {name: [aws.chunk(event) for event in _messages_events(name)] for name in SCENARIOS},
        [aws.chunk(event) for event in _messages_events("text")[:4]],
        aws.exception("modelStreamErrorException", LATE),
        b'{"message": "slow down"}',
        content_type="application/vnd.amazon.eventstream",
        signed=True,
    )


def _sagemaker() -> Wire:
    chat = _chat()

    def parts(pieces: list[bytes]) -> list[bytes]:
        body = b"".join(pieces)  # a part ends anywhere, also within a character
        return [aws.part(body[at : at + 41]) for at in range(0, len(body), 41)]

    return Wire(
        "sagemaker",
        {"backend": "sagemaker", "region": "us-east-1", "payload": "openai"},
        {name: parts(pieces) for name, pieces in chat.bodies.items()},
        parts(chat.start),
        aws.exception("ModelStreamError", LATE),
        b'{"message": "slow down"}',
        content_type="application/vnd.amazon.eventstream",
    )


def _cohere() -> Wire:
    def message(kind: str, place: int | None = None, **fields: Any) -> dict[str, Any]:
        document: dict[str, Any] = {"type": kind, "delta": {"message": fields}}
        return document if place is None else document | {"index": place}

    usage = {
        "billed_units": {"input_tokens": 3, "output_tokens": 2},
        "tokens": {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS},
    }

    def body(events: list[Any], reason: str = "COMPLETE") -> list[bytes]:
        start = {"type": "message-start", "id": "co1", "delta": {"message": {"role": "assistant"}}}
        end = {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}}
        return [*sse(start, *events, end, named=True), b"data: [DONE]\n\n"]

    def content(place: int, key: str, texts: Sequence[str]) -> list[Any]:
        return [
            message("content-start", place, content={"type": key, key: ""}),
            *(message("content-delta", place, content={key: text}) for text in texts),
            {"type": "content-end", "index": place},
        ]

    calls: list[Any] = []
    for place, (name, function, arguments) in enumerate(CALLS):
        call = {"id": name, "type": "function", "function": {"name": function, "arguments": ""}}
        calls.append(message("tool-call-start", place, tool_calls=call))
        calls += [
            message("tool-call-delta", place, tool_calls={"function": {"arguments": piece}})
            for piece in (arguments[:4], arguments[4:])
            if piece
        ]
        calls.append({"type": "tool-call-end", "index": place})
    text = body(content(0, "text", TEXT))
    failed = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": LATE}}
    return Wire(
        "cohere",
        {"backend": "cohere"},
        {
            "text": text,
            "tools": body(calls, "TOOL_CALL"),
            "reasoning": body([*content(0, "thinking", THOUGHTS), *content(1, "text", ["Done"])]),
        },
        text[:3],
        sse(failed, named=True)[0],
        b'{"id": "x", "message": "slow down"}',
        cached=False,
    )


def _tgi() -> Wire:
    def token(text: str, last: bool = False) -> dict[str, Any]:
        details = {
            "finish_reason": "eos_token",
            "generated_tokens": COMPLETION_TOKENS,
            "input_length": PROMPT_TOKENS,
            "seed": None,
        }
        return {
            "index": 1,
            "token": {"id": 5, "text": text, "logprob": -0.5, "special": last},
            "generated_text": "".join(TEXT) if last else None,
            "details": details if last else None,
        }

    def tight(*documents: Any) -> list[bytes]:
        return [piece.replace(b"data: ", b"data:", 1) for piece in sse(*documents)]

    late = {"error": LATE, "error_type": "generation"}
    return Wire(
        "tgi",
        {"backend": "tgi"},
        {"text": tight(*(token(t) for t in TEXT), token("</s>", last=True))},
        tight(token(TEXT[0])),
        tight(late)[0],
        b'{"error": "slow down", "error_type": "overloaded"}',
        exact=False,
        cached=False,
    )


def _ollama() -> Wire:
    def line(done: bool = False, **message: Any) -> dict[str, Any]:
        document: dict[str, Any] = {
            "model": "up",
            "created_at": "2026-11-01T00:00:00Z",
            "message": {"role": "assistant", "content": "", **message},
            "done": done,
        }
        if done:
            document |= {
                "done_reason": "stop",
                "total_duration": 5,
                "prompt_eval_count": PROMPT_TOKENS,
                "eval_count": COMPLETION_TOKENS,
            }
        return document

    calls = [{"function": {"name": f, "arguments": json.loads(a or "{}")}} for _, f, a in CALLS]
    return Wire(
        "ollama",
        {"backend": "ollama"},
        {
            "text": lines(*(line(content=t) for t in TEXT), line(done=True)),
            "tools": lines(line(tool_calls=calls), line(done=True)),
            "reasoning": lines(
                *(line(thinking=t) for t in THOUGHTS), line(content="Done"), line(done=True)
            ),
        },
        lines(line(content=TEXT[0])),
        lines({"error": LATE})[0],
        b'{"error": "slow down"}',
        content_type="application/x-ndjson",
        cached=False,
    )


_MAKERS: tuple[Callable[[], Wire], ...] = (
    _chat, _completions, _responses, _messages, _gemini, _converse, _invoke, _sagemaker,
    _cohere, _tgi, _ollama,
)  # fmt: skip
WIRES = tuple(make() for make in _MAKERS)
