"""What an upstream says in a way that nobody knows is an error, never a piece less."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.errors import ProtocolError
from backends.types import Finish
from backends.wire.bedrock_stream import ConverseDecoder
from backends.wire.cohere_stream import CohereDecoder
from backends.wire.completions_stream import CompletionsDecoder
from backends.wire.decoder import AnswerDecoder
from backends.wire.gemini_stream import GeminiDecoder
from backends.wire.messages_stream import MessagesDecoder
from backends.wire.ollama_stream import OllamaDecoder
from backends.wire.openai_chat import StreamDecoder
from backends.wire.tgi_stream import TGIDecoder
from tests.aws import event as frame
from tests.wire.plain import feed, lines, sse
from tests.wire.test_lenient import chat, messages, whole


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": "wonderful "},
        {"delta": [{"content": "a"}]},
        {"delta": {"tool_calls": "f(1)"}},
        {"delta": {"tool_calls": ["f"]}},
        {"delta": {"tool_calls": {"0": {"function": {"name": "f"}}}}},
        {"delta": {"tool_calls": [{"function": "f", "arguments": "{}"}]}},
        {"delta": {"tool_calls": [{"function": {"name": {"text": "f"}}}]}},
        {"delta": {"tool_calls": [{"index": "first", "function": {"name": "f"}}]}},
        {"delta": {"tool_calls": [{"index": 0.5, "function": {"name": "f"}}]}},
        {"delta": {"function_call": "f"}},
        {"delta": {"reasoning": True}},
        {"delta": {"reasoning": {"text": "a", "summary": "b"}}},
        {"delta": {"reasoning": {"text": {"parts": ["hm"]}}}},
        {"delta": {"reasoning": ["h", {"image": "m"}]}},
        {"delta": {"refusal": {"reason": "no"}}},
        {"delta": {}, "finish_reason": ["stop", "length"]},
        {"index": True, "delta": {"content": "a"}},
    ],
)
def test_what_says_something_unknown_is_not_left_out(choice: Any) -> None:
    """The answer would look whole without it; so it is of another wire, streamed or whole."""
    around = {"delta": {"content": "Hello "}}, {"delta": {"content": "world"}}
    events, failure = feed(StreamDecoder(), chat(around[0], choice, around[1]))
    assert isinstance(failure, ProtocolError)
    assert not any(isinstance(event, Finish) for event in events)
    message = {"message": choice["delta"], **{k: v for k, v in choice.items() if k != "delta"}}
    document = {"choices": [{"finish_reason": "stop"} | message]}
    _, failure = feed(StreamDecoder(), json.dumps(document).encode())
    assert isinstance(failure, ProtocolError)


def candidate(**fields: Any) -> bytes:
    """Return a whole answer of Google's with this candidate."""
    return sse({"candidates": [{"finishReason": "STOP"} | fields]})


def ollama(**message: Any) -> bytes:
    """Return a whole answer of Ollama's."""
    return lines({"message": {"content": "a"} | message, "done": True, "eval_count": 1.5})


def cohere(**message: Any) -> bytes:
    """Return a whole answer of Cohere's."""
    message = {"content": [{"type": "text", "text": "a"}]} | message
    return json.dumps({"message": message, "finish_reason": "COMPLETE"}).encode()


LOST: dict[str, tuple[AnswerDecoder, bytes]] = {
    "completions": (CompletionsDecoder(), sse({"choices": [{"text": ["a"]}]})),
    "gemini text": (GeminiDecoder(), candidate(content={"parts": [{"text": ["a"]}]})),
    "gemini part": (GeminiDecoder(), candidate(content={"parts": ["a"]})),
    "gemini content": (GeminiDecoder(), candidate(content="a")),
    "gemini arguments": (
        GeminiDecoder(),
        candidate(content={"parts": [{"functionCall": {"name": "f", "args": "{}"}}]}),
    ),
    "gemini thought": (
        GeminiDecoder(),
        candidate(content={"parts": [{"text": "a", "thought": "perhaps"}]}),
    ),
    "cohere": (CohereDecoder(), cohere(content=[{"text": ["a"], "thinking": "hm"}])),
    "cohere plan": (CohereDecoder(), cohere(tool_plan={"steps": ["a"]})),
    "ollama": (OllamaDecoder(), ollama(content={"answer": 5})),
    "ollama calls": (OllamaDecoder(), ollama(tool_calls="f(1)")),
    "tgi": (TGIDecoder(), sse({"token": {"text": ["a"]}, "generated_text": "a"})),
    "messages": (MessagesDecoder(), messages({"type": "text_delta", "text": ["a"]})),
    "converse": (
        ConverseDecoder(),
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": ["a"]}}),
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_no_wire_leaves_out_what_says_something(case: str) -> None:
    """Whichever the wire."""
    decoder, body = LOST[case]
    assert isinstance(feed(decoder, body)[1], ProtocolError)


def test_what_other_wires_say_in_other_types_is_read() -> None:
    """Calls that name their function themselves, words in pieces, booleans in words."""
    flat = [{"id": "c", "name": "f", "arguments": {"x": 1}}]
    for decoder, body in ((OllamaDecoder(), ollama), (CohereDecoder(), cohere)):
        assert whole(decoder, body(tool_calls=flat))[:3] == ("a", "", [("f", '{"x":1}')])
    assert whole(CohereDecoder(), cohere(content={"text": "a", "thinking": ["h", "m"]}))[:2] == (
        "a",
        "hm",
    )
    parts = [{"text": "hm", "thought": "True"}, {"text": 0}]
    body = candidate(content={"parts": parts}, finishMessage={"why": "done"})
    assert whole(GeminiDecoder(), body)[:2] == ("0", "hm")


def test_a_report_that_cannot_be_read_is_missing() -> None:
    """Answers are counted here then; nothing of what was said is lost."""
    assert whole(OllamaDecoder(), ollama())[0] == "a"
    details = {"finish_reason": "length", "generated_tokens": "many"}
    body = sse({"token": {"text": "a"}, "generated_text": "a", "details": details})
    events, failure = feed(TGIDecoder(), body)
    assert failure is None
    assert isinstance(events[-1], Finish)
    assert events[-1].usage is None
