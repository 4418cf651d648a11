"""A worker's way to exact token counts; where there is none, the bound by bytes stands.

A count is made by the tokenizer process, or by an upstream that offers it: of one request of an
account at a time, and never for long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from backends.base import Counting
from backends.errors import BackendError
from backends.types import ChatRequest
from backends.wire.said import call_texts, content_texts
from gateway.tokenizer.wire import MAX_TEXT_BYTES, Question, Reply, frame, read_frame

log = logging.getLogger("tollway")

NO_TEXT: Final = frozenset({"image_url", "input_audio", "video_url", "file"})
"""Parts of a prompt whose tokens no count of texts can know."""

PART_SLACK_TOKENS: Final = 8
"""How far apart the counts of a text may be in two templates, at its ends."""

_decode = msgspec.msgpack.Decoder(Reply).decode


def whole_text(request: ChatRequest) -> str:
    """Return a text with at least as many tokens as the prompt: all that can reach a model."""
    native = request.native
    document: Any = [request.messages, request.params] if native is None else native.body
    return msgspec.json.encode(document).decode()


def least_text(request: ChatRequest) -> str:
    """Return a text with hardly more tokens than the prompt: what no template leaves out.

    Not tools and calls, which it may say in fewer words than JSON has; not what a model thought
    before it spoke, which many are not told again; not the white space around a text. Parts of one
    message stand as close as they do in the closest template. See ``slack_tokens``.
    """
    messages = []
    for message in request.messages:
        if parts := content_texts(message):
            text = "".join([part.strip() for part in parts])
            messages.append(text.rpartition("</think>")[2].strip())
    return "\n".join(messages)


def slack_tokens(request: ChatRequest) -> int:
    """Return how many tokens ``least_text`` may have above the least of any template.

    Where a text begins or ends, words merge with what a template puts there, or do not.
    """
    return PART_SLACK_TOKENS * sum(len(content_texts(message)) for message in request.messages)


def plain_text(request: ChatRequest) -> str:
    """Return what the messages say and call, and the tools: what a count of the prompt is about.

    Not what a model thought before it spoke, which many are not told again.
    """
    texts: list[str] = []
    for message in request.messages:
        texts += content_texts(message)
        texts += call_texts(message)
    if tools := request.params.get("tools"):
        texts.append(msgspec.json.encode(tools).decode())
    return "\n".join(texts)


class AtUpstream(NamedTuple):
    """How many tokens a prompt has where its upstream counts."""

    backend: Counting
    request: ChatRequest


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
        asked = {"": Question(encoding, text)}
        return (await self.at_once(account, asked, self._timeout_s)).get("")

    async def count_at(self, account: str, backend: Counting, request: ChatRequest) -> int | None:
        """Return a prompt's tokens as an upstream counts them; None if it does not say in time."""
        asked = {"": AtUpstream(backend, request)}
        return (await self.at_once(account, asked, self._upstream_s)).get("")

    async def at_once(
        self, account: str, asked: Mapping[str, Question | AtUpstream], within_s: float
    ) -> dict[str, int]:
        """Return the answers that come in time to what one request asks, all at the same time.

        Args:
            account: whose turn it takes.
            asked: by any name.
            within_s: how long all of it may take, with the wait for the account's turn.
        """
        counts: dict[str, int] = {}

        async def ask(name: str, question: Question | AtUpstream) -> None:
            if (count := await self._answer(question)) is not None:
                counts[name] = count

        able = {name: question for name, question in asked.items() if self._may_ask(question)}
        if not able:
            return counts
        turn = self._turns.setdefault(account, asyncio.Lock())
        try:
            async with asyncio.timeout(within_s), turn, asyncio.TaskGroup() as group:
                for name, question in able.items():
                    group.create_task(ask(name, question))
        except TimeoutError:
            log.warning("%s of %s token counts in %s s", len(counts), len(able), within_s)
        return counts

    def _may_ask(self, question: Question | AtUpstream) -> bool:
        if isinstance(question, AtUpstream):
            return True
        known = bool(self._path and question.encoding)
        return known and len(question.text) <= MAX_TEXT_BYTES // 4

    async def _answer(self, question: Question | AtUpstream) -> int | None:
        try:
            if isinstance(question, AtUpstream):
                return await question.backend.count(question.request)
            return await self._ask(question)
        except (BackendError, OSError, EOFError, ValueError, msgspec.DecodeError) as error:
            who = "an upstream" if isinstance(question, AtUpstream) else question.encoding
            log.warning("no token count by %s: %s", who, type(error).__name__)
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
