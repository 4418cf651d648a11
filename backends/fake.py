"""A scripted upstream for tests, demos and load runs: real events, no network.

``script``: ``tokens`` or ``text`` is what it says, ``first_token_ms`` and ``token_ms`` are
its pace, ``usage`` is ``exact``, ``missing`` or ``double``, and ``fail`` makes its first
``times`` answers (all, when absent) go wrong after ``after_tokens`` tokens, ``how``:
``status`` (an HTTP ``status``), ``reset``, ``stall``, ``cut`` or ``garbage``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec

from backends.base import BackendConfig, Capabilities, EventBatches
from backends.errors import BackendError, ConnectionFailed, StreamTruncated, classify
from backends.types import (
    ChatRequest,
    ChoiceEnd,
    Finish,
    FinishReason,
    ResponseStart,
    StreamEvent,
    TextDelta,
    Usage,
    UsageUpdate,
    VectorDelta,
)

_FIELDS = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stop",
        "n",
        "user",
        "completions.prompt",
        "embeddings",
        "embeddings.input",
    }
)
_PROMPT_BYTES_PER_TOKEN = 4


Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Wait = Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How and when an answer goes wrong."""

    how: Literal["status", "reset", "stall", "cut", "garbage"] = "status"
    status: int = 500
    retry_after_s: float | None = None
    after_tokens: Count = 0
    times: Count | None = None


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the fake does for every request."""

    tokens: Count = 60
    text: str | None = None
    first_token_ms: Wait = 0
    token_ms: Wait = 0
    usage: Literal["exact", "missing", "double"] = "exact"
    fail: Failure | None = None


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What only this kind knows."""

    script: dict[str, Any] = {}


def check(config: BackendConfig) -> None:
    """Check the script.

    Raises:
        ValueError: it has a field or value that is not known.
    """
    read_script(config.options.get("script", {}))


def build(config: BackendConfig) -> FakeBackend:
    """Build a fake from its script.

    Raises:
        ValueError: the script has a field or value that is not known.
    """
    return FakeBackend(read_script(config.options.get("script", {})))


def read_script(document: Mapping[str, Any]) -> Script:
    """Check a script from configuration.

    Raises:
        ValueError: naming the field.
    """
    try:
        return msgspec.convert(dict(document), Script)
    except msgspec.ValidationError as error:
        raise ValueError(f"the fake's script: {error}") from error


class FakeBackend:
    """Answers from a script."""

    capabilities = Capabilities(fields=_FIELDS)

    def __init__(self, script: Script) -> None:
        """Keep the script and count the failures still to come."""
        self._script = script
        self._failures_left = script.fail.times if script.fail else 0

    @asynccontextmanager
    async def stream(self, request: ChatRequest, *, deadline: float) -> AsyncIterator[EventBatches]:
        """Answer from the script; see ``backends.base.Backend.stream``."""
        del deadline  # the dispatcher's guard ends a fake that stalls
        failure = self._next_failure()
        if failure is not None and failure.after_tokens == 0:
            await _refuse(failure)
        async with aclosing(self._events(request, failure)) as events:
            yield events

    async def aclose(self) -> None:
        """Nothing is open."""

    def _next_failure(self) -> Failure | None:
        failure = self._script.fail
        if failure is None or self._failures_left == 0:
            return None
        if self._failures_left is not None:
            self._failures_left -= 1
        return failure

    async def _events(
        self, request: ChatRequest, failure: Failure | None
    ) -> AsyncGenerator[Sequence[StreamEvent]]:
        script = self._script
        pieces, reason = _cut(_pieces(script), request)
        prompt_tokens = request.content_bytes // _PROMPT_BYTES_PER_TOKEN
        if request.operation == "embeddings":
            yield (ResponseStart("fake", "fake"), *_vectors(request))
            yield (Finish((ChoiceEnd(0, "stop", "stop"),), _usage(script, prompt_tokens, 0)),)
            return
        yield (ResponseStart("fake", "fake"), UsageUpdate(prompt_tokens, 0))
        pace_ms = script.first_token_ms
        for count, piece in enumerate(pieces, 1):
            await _break(failure, after=count - 1)
            if pace_ms:
                await asyncio.sleep(pace_ms / 1000)
            pace_ms = script.token_ms
            deltas = tuple(TextDelta(index, piece) for index in range(request.n))
            yield (*deltas, UsageUpdate(prompt_tokens, count * request.n))
        await _break(failure, after=len(pieces))
        dropped = 1 if failure is not None and failure.how == "garbage" else 0
        ends = tuple(ChoiceEnd(index, reason, reason) for index in range(request.n))
        usage = _usage(script, prompt_tokens, len(pieces) * request.n)
        yield (Finish(ends, usage, dropped),)


def _vectors(request: ChatRequest) -> list[VectorDelta]:
    """Give each input a small vector that says where it stands."""
    return [VectorDelta(index, [1.0, float(index)]) for index in range(len(request.inputs))]


def _pieces(script: Script) -> list[str]:
    if script.text is None:
        return [f"word{number % 10} " for number in range(script.tokens)]
    return re.findall(r"\S+\s*|\s+", script.text)


def _cut(pieces: list[str], request: ChatRequest) -> tuple[list[str], FinishReason]:
    """Honor ``stop`` and the output limit."""
    reason: FinishReason = "stop"
    text = "".join(pieces)
    ends = [position for word in request.stop if (position := text.find(word)) >= 0]
    if ends:
        left = min(ends)
        kept = []
        for piece in pieces:
            kept.append(piece[:left])
            left -= len(kept[-1])
        pieces = [piece for piece in kept if piece]
    bound = request.output_bound if request.output_bound is not None else request.max_tokens
    if bound is not None and bound < len(pieces):
        pieces, reason = pieces[:bound], "length"
    return pieces, reason


def _usage(script: Script, prompt_tokens: int, completion_tokens: int) -> Usage | None:
    if script.usage == "missing":
        return None
    factor = 2 if script.usage == "double" else 1
    return Usage(prompt_tokens * factor, completion_tokens * factor)


async def _refuse(failure: Failure) -> None:
    """Fail before the answer is accepted."""
    if failure.how == "status":
        raise _status_error(failure)
    if failure.how == "reset":
        raise ConnectionFailed("the fake upstream reset the connection, as scripted")
    if failure.how == "stall":
        await asyncio.Event().wait()
    if failure.how == "cut":
        raise StreamTruncated("the fake upstream ended without an answer, as scripted")


async def _break(failure: Failure | None, *, after: int) -> None:
    """Fail in the answer if it is time to. ``garbage`` is dropped and the answer goes on."""
    if failure is None or failure.after_tokens != after:
        return
    if failure.how == "stall":
        await asyncio.Event().wait()
    if failure.how == "status":
        raise _status_error(failure)
    if failure.how in ("cut", "reset"):
        raise StreamTruncated("the fake upstream broke off its answer, as scripted")


def _status_error(failure: Failure) -> BackendError:
    return classify(
        failure.status,
        f"the fake upstream answers {failure.status}, as scripted",
        retry_after_s=failure.retry_after_s,
    )
