"""A fresh decoder for each upstream wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backends.wire.bedrock_invoke import InvokeDecoder
from backends.wire.bedrock_stream import ConverseDecoder
from backends.wire.cohere_stream import CohereDecoder
from backends.wire.completions_stream import CompletionsDecoder
from backends.wire.decoder import AnswerDecoder
from backends.wire.gemini_stream import GeminiDecoder
from backends.wire.messages_stream import MessagesDecoder
from backends.wire.ollama_stream import OllamaDecoder
from backends.wire.openai_chat import StreamDecoder
from backends.wire.responses_stream import ResponsesDecoder
from backends.wire.sagemaker_stream import ChatPartsDecoder
from backends.wire.tgi_stream import TGIDecoder

DECODERS: Mapping[str, Callable[[], AnswerDecoder]] = {
    "chat": StreamDecoder,
    "completions": CompletionsDecoder,
    "responses": ResponsesDecoder,
    "messages": MessagesDecoder,
    "gemini": GeminiDecoder,
    "bedrock": ConverseDecoder,
    "bedrock-invoke": InvokeDecoder,
    "sagemaker": ChatPartsDecoder,
    "cohere": CohereDecoder,
    "tgi": TGIDecoder,
    "ollama": OllamaDecoder,
}
