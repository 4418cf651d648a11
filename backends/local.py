"""The built-in engine: another process, asked over its Unix socket like any OpenAI URL.

The engine reports its running token counts with every chunk, so what a cut answer
delivered is counted exactly.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from backends.answer_stream import AnswerStream
from backends.auth import KeyAuth
from backends.base import BackendConfig, Capabilities
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.wire.openai_chat import StreamDecoder
from backends.wire.openai_request import encode_request

_FIELDS = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
    }
)


_NO_AUTH = KeyAuth(())


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    weights: str = ""
    """``package:NAME`` or a folder in Hugging Face's format."""


def check(config: BackendConfig) -> None:
    """Check what can be checked before the engine runs.

    Raises:
        ValueError: a model's name is given, or no weights are.
    """
    if config.model:
        raise ValueError("'model': the built-in engine goes by the public name; leave it out")
    if not config.options.get("weights"):
        raise ValueError("'weights': needed here: package:NAME or a folder in HF format")


def build(config: BackendConfig) -> LocalBackend:
    """Build a backend for the engine behind ``socket_path``.

    Raises:
        ValueError: there is no socket path.
    """
    if not config.socket_path:
        raise ValueError("backend 'local' has no engine socket; start it with 'tollway serve'")
    return LocalBackend(config)


class LocalBackend:
    """One model in one engine process."""

    capabilities = Capabilities(fields=_FIELDS, caps_output=True)

    def __init__(self, config: BackendConfig) -> None:
        """Prepare; nothing connects yet."""
        self._model = config.model
        self._transport = Transport(dataclasses.replace(config, base_url="http://engine/v1"))

    def stream(self, request: ChatRequest, *, deadline: float) -> AnswerStream:
        """Ask for a streamed answer; see ``backends.base.Backend.stream``.

        The caller's own limit is refused where it does not fit beside the prompt; a bound that is
        only ours goes as a header, and ends the answer where the window ends at the latest.
        """
        bound = request.output_bound if request.max_tokens is None else None
        if bound is not None:
            request = msgspec.structs.replace(request, output_bound=None)
        body = encode_request(request, model=self._model)
        body["messages"] = [_plain(message) for message in request.messages]
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        left_s = max(deadline - asyncio.get_running_loop().time(), 0.0)
        headers = {
            "Content-Type": "application/json",
            "X-Request-Id": request.request_id,
            "X-Tollway-Account": quote(request.account),
            "X-Tollway-Deadline-Ms": str(int(left_s * 1000)),
        }
        if bound is not None:
            headers["X-Tollway-Max-Output"] = str(bound)
        call = Post("/chat/completions", headers, msgspec.json.encode(body))
        return AnswerStream(self._transport, call, StreamDecoder(), _NO_AUTH)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with what the engine reads; other keys are for other wires."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = [{"type": "text", "text": part[part["type"]]} for part in content]
    return {"role": message["role"], "content": content}
