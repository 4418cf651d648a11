"""A client's dialect: how it asks, and how it gets its answer. One object says all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from backends.collect import ChatAnswer
from backends.types import AnswerHead, ChatRequest, Cost, Delta, Finish, Usage


class Decoded(msgspec.Struct, frozen=True):
    """A client's body, understood."""

    request: ChatRequest
    stream: bool


class StreamEncoder(Protocol):
    """Writes one answer as server-sent events. Each method returns bytes to send, or none."""

    def open(self) -> bytes:
        """Return what precedes the first content; called once, when an endpoint has answered."""
        ...

    def delta(self, event: Delta) -> bytes:
        """Return what one event becomes."""
        ...

    def finish(self, finish: Finish, usage: Usage, cost: Cost) -> bytes:
        """Return the end of a complete answer, at least a byte."""
        ...

    def error(self, error: Mapping[str, Any], usage: Usage | None, cost: Cost | None) -> bytes:
        """Return the end of an answer that failed, at least a byte; ``open`` may not have been.

        Args:
            error: ``code`` (HTTP status), ``message``, ``type``, ``param``, ``metadata``.
            usage: what is charged, or None.
            cost: the same in money.
        """
        ...

    def waiting(self) -> Iterable[Delta]:
        """Return what ``delta`` took and has written nothing of yet: nobody got it so far."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of client speaks."""

    name: str
    """In metrics, logs and generation records."""

    decode: Callable[[bytes], Decoded]
    """Reads a body; raises ``InvalidRequest``."""

    encoder: Callable[[AnswerHead, ChatRequest], StreamEncoder]
    """Begins a streamed answer to a request."""

    whole: Callable[[AnswerHead, ChatRequest, ChatAnswer, Usage, Cost], bytes]
    """Writes a whole answer."""

    error: Callable[[Mapping[str, Any]], bytes]
    """Writes the body of an error answer; its argument is that of ``StreamEncoder.error``."""
