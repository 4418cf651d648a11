"""AWS's binary event streams: frames with checksums in, the JSON or bytes in them out.

Source: AWS SDK reference, "application/vnd.amazon.eventstream", and the service models of
``bedrock-runtime`` and ``sagemaker-runtime`` (botocore 1.44.5, read 2026-11). Frames are parsed
by botocore, which comes with the extra ``aws``; it is imported with the first answer.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from backends.errors import BackendError, ProtocolError, StreamTruncated, classify
from backends.wire.failure import error_words

MAX_FRAME_BYTES: Final = 1024 * 1024
"""A frame longer than this is not a model's; reading on would only fill memory."""

Unwrap: TypeAlias = Callable[[str, bytes], Iterable[bytes]]
"""Returns what one event stands for, from its type and its payload."""

_STATUS_OF: Final[Mapping[str, int]] = {
    "throttling": 429,
    "modelnotready": 429,
    "servicequotaexceeded": 429,
    "validation": 400,
    "accessdenied": 403,
    "resourcenotfound": 404,
    "modeltimeout": 408,
    "serviceunavailable": 503,
}
"""Statuses of exceptions by the beginning of their names; any other is the upstream's failure."""


class Frames:
    """Cuts a body into frames, whatever the reads' boundaries (``decoder.Framing``).

    Raises from ``feed`` and ``end``: ``ProtocolError`` where a frame is damaged or passes
    ``MAX_FRAME_BYTES``, ``StreamTruncated`` where the body ends within one, and for an exception
    frame the error that it stands for.
    """

    def __init__(self, unwrap: Unwrap) -> None:
        """Start at the beginning of a body; ``unwrap`` says what an event's payload is."""
        from botocore import eventstream

        self._buffer = eventstream.EventStreamBuffer()
        self._parser_error = eventstream.ParserError
        self._unwrap = unwrap
        self._pending = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what the frames hold that ``chunk`` completes."""
        self._buffer.add_data(chunk)
        self._pending += len(chunk)
        while True:
            try:
                frame = next(self._buffer, None)
            except (self._parser_error, struct.error, ValueError, LookupError) as error:
                raise ProtocolError(f"a frame of the upstream's stream: {error}") from error
            size = self._pending if frame is None else frame.prelude.total_length
            if size > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame is longer than {MAX_FRAME_BYTES} bytes")
            if frame is None:
                return
            self._pending -= size
            if frame.headers.get(":message-type") in ("exception", "error"):
                raise _error(frame.headers, frame.payload)
            yield from self._unwrap(str(frame.headers.get(":event-type")), frame.payload)

    def end(self) -> Iterator[bytes]:
        """Make sure that the body did not end within a frame; nothing is left to yield."""
        if self._pending:
            raise StreamTruncated("the upstream's stream ended within a frame")
        yield from ()


def named(kind: str, payload: bytes) -> Iterable[bytes]:
    """Unwrap an event of Converse: an object whose only key says what it is."""
    return (b'{"%b":%b}' % (kind.encode(), payload or b"{}"),)


class _Chunk(msgspec.Struct, gc=False):
    data: str = msgspec.field(name="bytes", default="")


_chunk: Final = msgspec.json.Decoder(_Chunk).decode


def invoked(kind: str, payload: bytes) -> Iterable[bytes]:
    """Unwrap an event of ``invoke-with-response-stream``: the model's own event, in base64.

    What cannot be read is passed on as it is, so that it is counted as dropped.
    """
    if kind != "chunk":
        return ()
    try:
        return (base64.b64decode(_chunk(payload).data, validate=True),)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError):
        return (b"\0" + payload,)


def parts(kind: str, payload: bytes) -> Iterable[bytes]:
    """Unwrap an event of SageMaker: a piece of the container's body, cut anywhere."""
    return (payload,) if kind == "PayloadPart" and payload else ()


def _error(headers: Mapping[str, Any], payload: bytes) -> BackendError:
    """Return what a frame that is no event stands for."""
    name = str(headers.get(":exception-type") or headers.get(":error-code") or "")
    try:
        message, _ = error_words(msgspec.json.decode(payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = ""
    message = message or str(headers.get(":error-message") or "")
    plain = name.lower()
    status = next((s for start, s in _STATUS_OF.items() if plain.startswith(start)), 502)
    return classify(
        status, message or f"the upstream's stream broke with {name or 'an error'}", code=name
    )
