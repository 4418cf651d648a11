"""Recorded answers through the running gateway: what a chat client reads is what was said.

One upstream serves every recording under a path of its own, and each is one endpoint of one model,
configured as an operator would; the judge is the same independent reader.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from backends.collect import Choice, ToolCall
from tests.aws import aws_account
from tests.gateway_harness import Gateway, model, running, settings
from tests.recordings import readers
from tests.recordings.cases import (
    COMPLETIONS,
    CONVERSE,
    DECODERS,
    INVOKE,
    RESPONSES,
    SETTINGS,
    TGI,
    Case,
    answers,
)
from tests.recordings.compare import choice_differences
from tests.recordings.extract import Extract
from tests.upstream import Exchange, serving

pytestmark = pytest.mark.anyio
__all__ = ["aws_account"]

KINDS: dict[str, dict[str, Any]] = {
    "chat": {"backend": "openai"},
    COMPLETIONS: {"backend": "openai", "api": "completions"},
    RESPONSES: {"backend": "openai", "api": "responses"},
    "messages": {"backend": "anthropic"},
    INVOKE: {"backend": "bedrock", "api": "invoke", "maker": "anthropic", "region": "us-east-1"},
    "gemini": {"backend": "gemini"},
    CONVERSE: {"backend": "bedrock", "region": "us-east-1"},
    "cohere": {"backend": "cohere"},
    TGI: {"backend": "tgi"},
    "ollama": {"backend": "ollama"},
}
VENDORS = {"fireworks": "fireworks", "hf-router": "hf-router", "novita": "novita"}
VENDORS |= {"snowflake": "snowflake", "litellm-proxy": "litellm"}
KEYLESS = (INVOKE, CONVERSE)
PROMPT = "All work and no play makes Jack a dull boy. " * 4000
"""Longer than any recorded prompt, so that every report is within what was held."""

AT_ONCE = 8


def endpoint(case: Case, port: int, number: int) -> dict[str, Any]:
    """Return the configuration of a recording's endpoint."""
    own = {} if case.wire in KEYLESS else {"api_key_env": "UPSTREAM_KEY"}
    if case.provider in VENDORS and case.provider in SETTINGS:
        own["vendor"] = VENDORS[case.provider]
    return {
        **KINDS[case.wire],
        **own,
        "provider": "acme",
        "model": "up-model",
        "base_url": f"http://127.0.0.1:{port}/{number}",
        "price": {"prompt": "0.01", "completion": "0.01"},
        "max_output_tokens": 200_000,
        "retries": 0,
    }


async def asked(gateway: Gateway, number: int, copies: int, *, stream: bool) -> tuple[int, Any]:
    """Ask for one recording; return the status, and the answer or its chunks."""
    body: dict[str, Any] = {"model": f"case/{number}", "max_tokens": 200_000, "stream": stream}
    body["messages"] = [{"role": "user", "content": PROMPT}]
    if copies > 1:
        body["n"] = copies
    headers = {"Authorization": f"Bearer {gateway.key}"}
    answer = await gateway.client.post(
        "/v1/chat/completions", json=body, headers=headers, timeout=60
    )
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.status_code, answer.json()
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return 200, [json.loads(line) for line in lines if line != "[DONE]"]


def joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Add chunks up to the shape of a whole answer, in the plainest way."""
    messages: dict[int, dict[str, Any]] = {}
    whole: dict[str, Any] = {"choices": [], "usage": None}
    for chunk in chunks:
        whole["usage"] = chunk.get("usage") or whole["usage"]
        whole |= {"error": chunk["error"]} if "error" in chunk else {}
        for choice in chunk["choices"]:
            said = messages.setdefault(choice["index"], {"index": choice["index"], "message": {}})
            said["finish_reason"] = choice["finish_reason"]
            said["native_finish_reason"] = choice["native_finish_reason"]
            _grow(said["message"], choice["delta"])
    whole["choices"] = [messages[index] for index in sorted(messages)]
    return whole


def _grow(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in ("content", "reasoning", "refusal"):
        message[name] = (message.get(name) or "") + (delta.get(name) or "")
    for name in ("reasoning_details", "images"):
        message[name] = message.get(name, []) + delta.get(name, [])
    calls = message.setdefault("calls", {})
    for piece in delta.get("tool_calls", ()):
        kind = piece["type"]
        said = "input" if kind == "custom" else "arguments"
        empty = {"id": "", "type": kind, kind: {"name": "", said: ""}}
        call = calls.setdefault(piece["index"], empty)
        call["id"] += piece.get("id", "")
        call[kind]["name"] += piece[kind].get("name", "")
        call[kind][said] += piece[kind][said]
    message["tool_calls"] = list(calls.values())


def understood(choice: dict[str, Any]) -> Choice:
    """Return a choice as its client has it."""
    message = choice["message"]
    calls = message.get("tool_calls") or ()
    return Choice(
        choice["index"],
        text=message.get("content") or "",
        reasoning=message.get("reasoning") or "",
        refusal=message.get("refusal") or "",
        details=message.get("reasoning_details") or [],
        images=[image["image_url"]["url"] for image in message.get("images") or ()],
        calls=[
            ToolCall(call["id"], *_called(call), custom=call["type"] == "custom") for call in calls
        ],
        reason=choice["finish_reason"],
        raw_reason=choice["native_finish_reason"] or "",
    )


def _called(call: dict[str, Any]) -> tuple[str, str]:
    inner = call[call["type"]]
    return inner["name"], inner["input" if call["type"] == "custom" else "arguments"]


def differences(case: Case, status: int, answer: dict[str, Any]) -> Iterable[str]:
    """Yield what a client reads that the reader does not."""
    expected = readers.read(case)
    if "error" in answer:
        if expected.complete and not _silent(expected):
            yield f"failed with {status}: {answer['error']['message'][:200]}"
        elif expected.error and expected.error not in answer["error"]["message"]:
            yield f"says {answer['error']['message']!r}, expected {expected.error!r}"
        return
    if not expected.complete:
        yield "looks complete"
        return
    ours = {choice["index"]: understood(choice) for choice in answer["choices"]}
    for index, said in expected.choices.items():
        choice = ours.get(index, Choice(index))
        yield from choice_differences(said, choice)
        if said.finish and choice.reason != said.finish:
            yield f"ends as {choice.reason}, expected {said.finish}"
    if expected.usage and _believable(expected):
        usage = answer["usage"]
        for counted, told in (
            (usage["prompt_tokens"], expected.usage.prompt),
            (usage["completion_tokens"], expected.usage.completion),
        ):
            if told is not None and counted != told:
                yield f"usage is {usage}, expected {expected.usage}"


def _believable(expected: Extract) -> bool:
    """No more tokens than bytes, marks and the forms of calls; hidden reasoning apart."""
    tokens = expected.usage
    assert tokens is not None
    shown, thought, reported = 0, 0, tokens.reasoning or 0
    completion = tokens.completion or 0
    for said in expected.choices.values():
        calls = "".join(name + json.dumps(arguments) for name, arguments in said.calls)
        shown += len((said.text + said.refusal + calls).encode()) + 8 + 64 * len(said.calls)
        thought += len("".join(said.reasoning).encode())
    hidden = max(0, reported - thought)
    hidden += 63 if hidden and reported % 64 == 0 else 0
    images = any(said.images for said in expected.choices.values())
    return not images and completion - hidden <= shown + thought


def _silent(expected: Extract) -> bool:
    """A clean stop without any output is a failure by the house's rules."""
    return not any(
        said.text or said.calls or said.refusal or said.images or "".join(said.reasoning)
        for said in expected.choices.values()
    )


@pytest.mark.parametrize("wire", sorted(DECODERS))
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_client_reads_what_was_recorded(
    redis_url: str,
    wire: str,
    stream: bool,
    aws_account: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Text, reasoning, calls, ends, usage and errors; every recording of a wire."""
    monkeypatch.setenv("UPSTREAM_KEY", "sk-upstream")
    cases = [case for case in answers() if case.wire == wire]

    async def replay(exchange: Exchange) -> None:
        case = cases[int(exchange.request.path.split("/")[1])]
        kind = "text/event-stream" if case.is_stream else "application/json"
        await exchange.head(headers={"Content-Type": kind})
        if case.body:
            await exchange.send(case.body)
        await exchange.end()

    async with serving(replay) as upstream:
        models = [
            model(endpoint(case, upstream.port, number), id=f"case/{number}")
            for number, case in enumerate(cases)
        ]
        async with running(redis_url, settings(*models)) as gateway:
            turns = asyncio.Semaphore(AT_ONCE)

            async def judge(number: int, case: Case) -> tuple[str, list[str]]:
                copies = max(readers.read(case).choices, default=0) + 1
                async with turns:
                    status, answer = await asked(gateway, number, copies, stream=stream)
                whole = joined(answer) if isinstance(answer, list) else answer
                return case.name, list(differences(case, status, whole))

            judged = await asyncio.gather(*(judge(*entry) for entry in enumerate(cases)))
            await gateway.audited()
    assert {name: found for name, found in judged if found} == {}
