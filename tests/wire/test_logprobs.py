"""Log probabilities reach the client wherever they stand in an upstream's answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.collect import Collector
from backends.types import AnswerHead, ChatRequest, Cost, Finish, StreamEvent, TextDelta, Usage
from backends.wire.chat import CHAT
from backends.wire.completions_stream import CompletionsDecoder
from backends.wire.dialect import Dialect
from backends.wire.messages import MESSAGES
from backends.wire.openai_chat import StreamDecoder
from backends.wire.responses import RESPONSES
from backends.wire.responses_stream import ResponsesDecoder
from tests.wire.plain import feed, sse

HEAD = AnswerHead("gen-1", "acme/chat", "acme", 1)
REQUEST = ChatRequest(models=("m",), messages=(), params={}, required=frozenset(), prompt_bytes=0)


def token(text: str) -> dict[str, Any]:
    """Return a token as OpenAI's chat has it."""
    return {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}


def decoded(*choices: Any) -> list[StreamEvent]:
    """Return the events of a chat stream of these choices."""
    body = sse(*({"choices": [{"index": 0, **one}]} for one in choices)) + b"data: [DONE]\n\n"
    events, failure = feed(StreamDecoder(), body)
    assert failure is None, failure
    return events


def streamed(dialect: Dialect, events: list[StreamEvent]) -> list[Any]:
    """Return what a client of a dialect reads."""
    encoder = dialect.encoder(HEAD, REQUEST)
    data = encoder.open()
    for event in events[1:]:
        if isinstance(event, Finish):
            data += encoder.finish(event, Usage(1, 1), Cost(0))
        else:
            data += encoder.delta(event)  # type: ignore[arg-type]
    found = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in found if line != "[DONE]"]


def whole(dialect: Dialect, events: list[StreamEvent]) -> Any:
    """Return the same answer, whole."""
    collector = Collector()
    collector.add(events)
    answer = collector.answer()
    return json.loads(dialect.whole(HEAD, REQUEST, answer, Usage(1, 1), Cost(0)))


HALVES = (
    {"delta": {"content": ""}, "logprobs": {"content": [token("\\xf0\\x9f")]}},
    {"delta": {"content": "😀"}, "logprobs": {"content": [token("\\x98\\x80")]}},
    {"delta": None, "logprobs": {"content": [token("<end>")]}, "finish_reason": "stop"},
)


def test_tokens_without_text_and_beside_the_end_are_kept() -> None:
    """A character's first half has a token and no text; some servers count the end as one."""
    events = decoded(*HALVES)
    names = ["\\xf0\\x9f", "\\x98\\x80", "<end>"]
    found = [c["choices"][0]["logprobs"] for c in streamed(CHAT, events)]
    assert [entry["token"] for one in found if one for entry in one["content"]] == names
    [choice] = whole(CHAT, events)["choices"]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == names
    for answer in (
        whole(RESPONSES, events),
        streamed(RESPONSES, events)[-1]["response"],
    ):
        [item] = answer["output"]
        assert item["content"][0]["text"] == "😀"
        assert [entry["token"] for entry in item["content"][0]["logprobs"]] == names


def test_a_refusals_tokens_are_kept() -> None:
    """In chat, the only dialect that has a place for them; elsewhere they open nothing."""
    events = decoded(
        {"delta": {"refusal": "No"}, "logprobs": {"content": None, "refusal": [token("No")]}},
        {"delta": {}, "finish_reason": "stop"},
    )
    found = [c["choices"][0]["logprobs"] for c in streamed(CHAT, events)]
    assert [one["refusal"][0]["token"] for one in found if one] == ["No"]
    [choice] = whole(CHAT, events)["choices"]
    assert choice["logprobs"] == {"content": None, "refusal": [token("No")]}
    [item] = streamed(RESPONSES, events)[-1]["response"]["output"]
    assert [part["type"] for part in item["content"]] == ["refusal"]
    starts = [e for e in streamed(MESSAGES, events) if e["type"] == "content_block_start"]
    assert len(starts) == 1


def test_text_that_may_be_reasoning_keeps_its_tokens() -> None:
    """They are of the chunk, whatever its text turns out to be."""
    body = sse({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [token("a")]}}]})
    body += sse({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    events, _ = feed(StreamDecoder(think_tags=True), body)
    collector = Collector()
    collector.add(events)
    assert collector.answer().choices[0].logprobs == [token("a")]


@pytest.mark.parametrize("odd", [5, "a", {"a": 1}, [], None])
def test_lists_of_tokens_that_are_none_are_left_out(odd: Any) -> None:
    """Nothing that follows has to look."""
    events = decoded(
        {"delta": {"content": "a"}, "logprobs": {"content": odd, "refusal": odd}},
        {"delta": {}, "logprobs": odd, "finish_reason": "stop"},
    )
    for dialect in (CHAT, RESPONSES):
        whole(dialect, events)
        streamed(dialect, events)


def test_other_wires_keep_tokens_without_text() -> None:
    """Legacy completions and Responses."""
    lists = {"tokens": ["bytes:\\xf0"], "token_logprobs": [-0.5], "top_logprobs": None}
    body = sse(
        {"choices": [{"text": "", "logprobs": lists}]},
        {"choices": [{"text": "", "logprobs": {"tokens": []}, "finish_reason": "stop"}]},
    )
    events, _ = feed(CompletionsDecoder(), body)
    [said] = [event for event in events if isinstance(event, TextDelta)]
    assert (said.text, said.logprobs["content"][0]["token"]) == ("", "bytes:\\xf0")
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": ""}
    done = {"type": "response.completed", "response": {"status": "completed", "output": []}}
    events, _ = feed(ResponsesDecoder(), sse({**delta, "logprobs": [token("x")]}, done))
    [said] = [event for event in events if isinstance(event, TextDelta)]
    assert said == TextDelta(0, "", {"content": [token("x")]})
