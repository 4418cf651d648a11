"""A worker's way to exact token counts; where there is none, the bound by bytes stands.

A count is made by the tokenizer process, or by an upstream that offers it: of one request of an
account at a time, and never for long.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from backends.base import Counting
from backends.errors import BackendError
from backends.types import ChatRequest
from gateway.tokenizer.wire import MAX_TEXT_BYTES, Question, Reply, frame, read_frame

log = logging.getLogger("tollway")

NO_TEXT: Final = frozenset({"image_url", "input_audio", "video_url", "file"})
"""Parts of a prompt whose tokens no count of texts can know."""

_decode = msgspec.msgpack.Decoder(Reply).decode


def whole_text(request: ChatRequest) -> str:
    """Return a text with at least as many tokens as the prompt: all that can reach a model."""
    native = request.native
    document: Any = [request.messages, request.params] if native is None else native.body
    return msgspec.json.encode(document).decode()


def least_text(request: ChatRequest) -> str:
    """Return a text with at most as many tokens as the prompt: what no template leaves out.

    Not tools and calls, which it may say in fewer words than JSON has; not what a model thought
    before it spoke, which many are not told again; not the white space around a text.
    """
    texts = [text for message in request.messages for text in _said(message)]
    return "\n".join([text.rpartition("</think>")[2].strip() for text in texts])


def plain_text(request: ChatRequest) -> str:
    """Return what the messages say, and the tools: what a count of the prompt is about."""
    texts: list[str] = []
    for message in request.messages:
        texts += _said(message)
        for call in message.get("tool_calls") or ():
            texts += [call["function"]["name"], call["function"]["arguments"]]
    if tools := request.params.get("tools"):
        texts.append(msgspec.json.encode(tools).decode())
    return "\n".join(texts)


def _said(message: dict[str, Any]) -> list[str]:
    content = message.get("content") or ()
    if isinstance(content, str):
        return [content]
    return [part[part["type"]] for part in content if part["type"] in ("text", "refusal")]


UPSTREAM_S: Final = 2.0
"""How long an upstream may take to count: the request still has to be answered."""


class Tokens:
    """Asks who counts, for one request of an account at a time."""

    def __init__(
        self, path: str, *, timeout_s: float = 10.0, upstream_s: float = UPSTREAM_S
    ) -> None:
        """Nobody is asked yet.

        Args:
            path: the tokenizer process's socket; empty where there is no such process.
            timeout_s: how long a count by it may take: it may have to load an encoding.
            upstream_s: the same for an upstream.
        """
        self._path = path
        self._timeout_s = timeout_s
        self._upstream_s = upstream_s
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By account; each is kept by those who hold it or wait for it."""

    async def count(self, account: str, encoding: str, text: str) -> int | None:
        """Return a text's tokens in an encoding; None if that cannot be known in time."""
        if not (self._path and encoding) or len(text) > MAX_TEXT_BYTES // 4:
            return None
        turn = self._turns.setdefault(account, asyncio.Lock())
        try:
            async with asyncio.timeout(self._timeout_s), turn:
                return await self._ask(Question(encoding, text))
        except (OSError, EOFError, ValueError, msgspec.DecodeError) as error:
            log.warning("no token count in %s: %s", encoding, type(error).__name__)
            return None

    async def count_at(self, account: str, backend: Counting, request: ChatRequest) -> int | None:
        """Return a prompt's tokens as an upstream counts them; None if it does not say in time."""
        turn = self._turns.setdefault(account, asyncio.Lock())
        try:
            async with asyncio.timeout(self._upstream_s), turn:
                return await backend.count(request)
        except (BackendError, TimeoutError) as error:
            log.warning("no token count by an upstream: %s", type(error).__name__)
            return None

    async def _ask(self, question: Question) -> int | None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(frame(question))
            await writer.drain()
            return _decode(await read_frame(reader)).tokens
        finally:
            # Closing would wait for a busy process to take the rest of a question that is over.
            writer.transport.abort()
