"""One streamed answer of an upstream over HTTP; shared by the adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from backends.auth import NO_SECRETS, Auth
from backends.errors import BackendError
from backends.transport import Answer, Post, Transport
from backends.types import StreamEvent
from backends.wire.decoder import AnswerDecoder

REST_S: Final = 0.02
"""How long the end of the body may take after the answer's end: a connection whose answer was
not read to its end cannot be used again."""


class AnswerStream:
    """What ``backends.base.Backend.stream`` returns: a context, and within it the batches."""

    __slots__ = ("_answer", "_auth", "_call", "_credential", "_decoder", "_transport")

    def __init__(
        self, transport: Transport, call: Post, decoder: AnswerDecoder, auth: Auth
    ) -> None:
        """Prepare; entering the context sends ``call``, authenticated."""
        self._transport = transport
        self._call = call
        self._decoder = decoder
        self._auth = auth
        self._answer: Answer
        self._credential: Mapping[str, str] = {}

    async def __aenter__(self) -> Self:
        """Ask; see ``Transport.post``."""
        auth, call = self._auth, self._call
        await auth.ready()
        headers = self._credential = auth.headers(self._transport.url(call.path), call.body)
        try:
            self._answer = await self._transport.post(
                Post(call.path, {**call.headers, **headers}, call.body)
            )
        except BackendError as error:
            auth.failed(headers, error)
            self._hide_credential(error)
            raise
        return self

    def __aiter__(self) -> Self:
        """Be the iterator."""
        return self

    async def __anext__(self) -> Sequence[StreamEvent]:
        """Return the events of the next read that completes any.

        Raises:
            BackendError: the stream reported an error, broke off, or is another wire.
        """
        decoder = self._decoder
        if self._answer.closed:
            raise StopAsyncIteration
        while not decoder.done and decoder.failure is None:
            try:
                data = await self._answer.read()
            except BackendError as error:
                self._hide_credential(error)
                raise
            events = decoder.feed(data) if data else decoder.end()
            if events:
                return events
        if decoder.failure is not None:
            self._hide_credential(decoder.failure)
            raise decoder.failure
        raise StopAsyncIteration

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the upstream; a complete answer's connection is kept."""
        try:
            if self._decoder.done and not self._answer.complete:
                with suppress(BackendError, TimeoutError):
                    async with asyncio.timeout(REST_S):
                        while await self._answer.read():
                            pass
        finally:
            self._answer.close()

    def _hide_credential(self, error: BackendError) -> None:
        """Take the credential that was sent out of all that came back, of whatever shape."""
        known = self._call.headers.keys() | NO_SECRETS
        sent = [value for name, value in self._credential.items() if name not in known]
        error.redact(sent)
