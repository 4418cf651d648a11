"""What the vendors' own SDKs say of a request's body, one check per wire.

Each takes a body as it goes out and fails where the SDK's types do not take it. They are
installed for tests only.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

import botocore.session
import cohere
import msgspec
import ollama
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from botocore.validate import ParamValidator
from google.genai import types as google
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter
from pydantic_core import SchemaValidator

OPENROUTERS = frozenset(
    {
        *("top_k", "top_a", "min_p", "repetition_penalty", "reasoning", "image_config"),
        *("cache_control", "min_tokens", "ignore_eos", "stop_token_ids"),
    }
)
"""Fields that OpenRouter and vLLM added to chat and completions; OpenAI's types lack them."""

OLDER_CLAUDES = frozenset({"temperature", "top_p", "top_k"})
"""What Anthropic's API takes for older models, and its newest SDK lists no more."""

OLLAMAS = frozenset({"min_p"})
"""What Ollama's reference lists and its SDK does not (Modelfile parameters, read 2026-11)."""

TGI = {
    "inputs": str,
    "stream": bool,
    "parameters": {
        "details": bool,
        "return_full_text": bool,
        "do_sample": bool,
        "temperature": float,
        "top_p": float,
        "top_k": int,
        "seed": int,
        "repetition_penalty": float,
        "frequency_penalty": float,
        "stop": list[str],
        "max_new_tokens": int,
    },
}
"""Of TGI's documented parameters those that we send; it has no SDK ("GenerateParameters" in the
OpenAPI description of TGI 3, read 2026-11)."""


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body as its JSON says it."""
    return dict(json.loads(msgspec.json.encode(body)))


def _eager(schema: Any) -> Any:
    """Return a schema whose ``Iterable``s are lists, which pydantic checks at once and wholly."""
    if isinstance(schema, list | tuple):
        return type(schema)(_eager(inner) for inner in schema)
    if not isinstance(schema, dict):
        return schema
    made = {name: _eager(inner) for name, inner in schema.items() if name != "metadata"}
    return made | {"type": "list"} if made.get("type") == "generator" else made


@cache
def _validator(kind: Any) -> SchemaValidator:
    return SchemaValidator(_eager(TypeAdapter(kind).core_schema))


def _typed(kind: Any, body: Mapping[str, Any], others: frozenset[str] = frozenset()) -> None:
    plain = _plain(body)
    _validator(kind).validate_python(plain)
    kinds = get_args(kind) or (kind,)
    known = {name for one in kinds for name in one.__required_keys__ | one.__optional_keys__}
    assert plain.keys() - known - others == set(), f"the SDK knows no {plain.keys() - known}"


def chat(body: Mapping[str, Any]) -> None:
    """Check a body of OpenAI's chat."""
    kind = chat_create_params.CompletionCreateParamsStreaming
    _typed(kind, body, OPENROUTERS)


def responses(body: Mapping[str, Any]) -> None:
    """Check a body of OpenAI's Responses."""
    _typed(ResponseCreateParamsStreaming, body)


def completions(body: Mapping[str, Any]) -> None:
    """Check a body of OpenAI's legacy Completions."""
    _typed(completion_create_params.CompletionCreateParamsStreaming, body, OPENROUTERS)


def embeddings(body: Mapping[str, Any]) -> None:
    """Check a body of OpenAI's Embeddings."""
    _typed(embedding_create_params.EmbeddingCreateParams, body)


def messages(body: Mapping[str, Any]) -> None:
    """Check a body of Anthropic's Messages."""
    _typed(MessageCreateParamsStreaming, body, OLDER_CLAUDES)


def invoke(body: Mapping[str, Any]) -> None:
    """Check a body of Anthropic's Messages on Bedrock, whose URL says the rest."""
    given = _plain(body)
    assert given.pop("anthropic_version") == "bedrock-2023-05-31"
    messages({**given, "model": "m", "stream": True})


def gemini(body: Mapping[str, Any]) -> None:
    """Check a body of Google's generateContent; its types refuse unknown fields."""
    rest = _plain(body)
    for content in rest.pop("contents"):
        google.Content.model_validate(content)
    if "systemInstruction" in rest:
        google.Content.model_validate(rest.pop("systemInstruction"))
    for tool in rest.pop("tools", ()):
        google.Tool.model_validate(tool)
    if "toolConfig" in rest:
        google.ToolConfig.model_validate(rest.pop("toolConfig"))
    config = dict(rest.pop("generationConfig", {}))
    if "imageConfig" in config:
        google.ImageConfig.model_validate(config.pop("imageConfig"))
    thinking = config.get("thinkingConfig", {})
    if "thinkingLevel" in thinking:
        assert thinking["thinkingLevel"] in google.ThinkingLevel.__members__
    google.GenerationConfig.model_validate(config)
    for setting in rest.pop("safetySettings", ()):
        google.SafetySetting.model_validate(setting)
    rest.pop("labels", None)
    assert rest == {}


@cache
def _converse() -> Any:
    model = botocore.session.get_session().get_service_model("bedrock-runtime")
    return model.operation_model("ConverseStream").input_shape


def converse(body: Mapping[str, Any], model: str = "m") -> None:
    """Check a body of Bedrock's Converse by AWS's service model, which lists every field."""
    report = ParamValidator().validate({"modelId": model, **body}, _converse())
    assert not report.has_errors(), report.generate_report()
    json.dumps(body)


def cohere_chat(body: Mapping[str, Any]) -> None:
    """Check a body of Cohere's v2 chat by its SDK's method and the types of its arguments."""
    given = _plain(body)
    assert given.pop("stream") is True
    _by_method(cohere.ClientV2.chat_stream, given)
    for message in given["messages"]:
        kind = {
            "system": cohere.SystemChatMessageV2,
            "user": cohere.UserChatMessageV2,
            "assistant": cohere.AssistantChatMessageV2,
            "tool": cohere.ToolChatMessageV2,
        }[message["role"]]
        kind.model_validate(message)
    for tool in given.get("tools", ()):
        cohere.ToolV2.model_validate(tool)
    if "thinking" in given:
        cohere.Thinking.model_validate(given["thinking"])
    if "response_format" in given:
        cohere.JsonObjectResponseFormatV2.model_validate(given["response_format"])


def cohere_embed(body: Mapping[str, Any]) -> None:
    """Check a body of Cohere's v2 embed by its SDK's method."""
    _by_method(cohere.ClientV2.embed, body)


def _by_method(method: Any, body: Mapping[str, Any]) -> None:
    arguments = inspect.signature(method).parameters
    assert body.keys() <= arguments.keys(), "the SDK's method has no such argument"
    needed = {name for name, a in arguments.items() if a.default is a.empty} - {"self"}
    assert needed <= body.keys()


def tgi(body: Mapping[str, Any]) -> None:
    """Check a body of TGI's own wire by its documented parameters."""
    parameters: Any = TGI["parameters"]
    assert body.keys() == TGI.keys()
    assert body["parameters"].keys() <= parameters.keys()
    for name, value in body["parameters"].items():
        TypeAdapter(parameters[name]).validate_python(value, strict=False)
    assert isinstance(body["inputs"], str)


def ollama_chat(body: Mapping[str, Any]) -> None:
    """Check a body of Ollama's chat."""
    _whole(ollama._types.ChatRequest, body)
    _whole(ollama.Options, body["options"], OLLAMAS)


def ollama_embed(body: Mapping[str, Any]) -> None:
    """Check a body of Ollama's embed."""
    _whole(ollama._types.EmbedRequest, body)


def _whole(kind: Any, body: Mapping[str, Any], others: frozenset[str] = frozenset()) -> None:
    kind.model_validate(_plain(body))
    assert body.keys() - kind.model_fields.keys() - others == set()
