"""AWS's binary event streams: frames with checksums in, the JSON or bytes in them out.

Source: AWS SDK reference, "application/vnd.amazon.eventstream", and the service models of
``bedrock-runtime`` and ``sagemaker-runtime`` (botocore 1.44.5, read 2026-11). botocore, which
comes with the extra ``aws`` and is imported with the first answer, parses what stands before a
frame's payload. It takes microseconds for what is the same in most frames of most streams, so what
it has read once is remembered (deploy/adr/2026-12-01-frames-begin-alike.md).
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from backends.errors import BackendError, ProtocolError, StreamTruncated, classify
from backends.wire.error_words import error_words, original_status, read_document

MAX_FRAME_BYTES: Final = 1024 * 1024
"""A frame longer than this is not a model's; reading on would only fill memory."""

Unwrap: TypeAlias = Callable[[bytes], bytes]
"""Returns what the payload of an event stands for; empty where it is nothing."""

Unwrapping: TypeAlias = Callable[[str], Unwrap | None]
"""Says how events of a type are unwrapped; None where a payload stands for itself."""

MAX_REMEMBERED: Final = 2048
"""Beginnings of frames: a few types of event, times as many lengths as their payloads have."""

MAX_REMEMBERED_BYTES: Final = 512
_PRELUDE_BYTES: Final = 12
_CHECKSUM_BYTES: Final = 4
_DAMAGED: Final = "a frame of the upstream's stream: checksum mismatch"
_lengths: Final = Struct(">II").unpack_from
_prelude: Final = Struct(">III").unpack_from

_STATUS_OF: Final[Mapping[str, int]] = {
    "throttling": 429,
    "modelnotready": 429,
    "servicequotaexceeded": 429,
    "validation": 400,
    "accessdenied": 403,
    "resourcenotfound": 404,
    "modeltimeout": 408,
    "serviceunavailable": 503,
    "internalserver": 500,
    "internalstreamfailure": 500,
    "modelstreamerror": 500,
}
"""Statuses of exceptions by the beginning of their names; any other is the upstream's failure."""


_Reader: TypeAlias = Callable[..., tuple[Any, ...]]
"""Reads what stands before the payload, payload and checksum of a frame, from a body and where in
it the frame begins."""

_Form: TypeAlias = tuple[bytes, _Reader, int, Unwrap | None]
"""How a frame begins, what reads the rest, the checksum of the beginning, what unwraps."""


class _Beginning(NamedTuple):
    """What stands before the payload of a frame: its length, a checksum, headers."""

    read: _Reader
    checksum: int
    """Of the beginning; that of the payload goes on from it."""

    kind: str
    """The event's type."""

    headers: Mapping[str, Any]
    failed: bool
    """It is no event, but the stream's error."""


class Frames:
    """Cuts a body into frames, whatever the reads' boundaries (``decoder.Framing``).

    Raises from ``feed`` and ``end``: ``ProtocolError`` where a frame is damaged or passes
    ``MAX_FRAME_BYTES``, ``StreamTruncated`` where the body ends within one, and for an exception
    frame the error that it stands for.
    """

    __slots__ = ("_forms", "_pieces", "_size", "_unwrapping", "_wanted")

    def __init__(self, unwrapping: Unwrapping) -> None:
        """Start at the beginning of a body; ``unwrapping`` says what events are."""
        self._unwrapping = unwrapping
        self._forms = _forms(unwrapping)

        self._pieces: list[bytes] = []
        """Reads that have not completed a frame."""

        self._size = 0
        self._wanted = _PRELUDE_BYTES
        """How many bytes there must be before it is worth to look again."""

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """Return what the frames hold that ``chunk`` completes."""
        if self._pieces:
            self._pieces.append(chunk)
            self._size += len(chunk)
            if self._size < self._wanted:
                return ()
            chunk = b"".join(self._pieces)
            self._pieces.clear()
        elif (form := self._forms.get(len(chunk))) is not None:
            # A read of a paced stream is one frame: to compare is quicker than to parse.
            beginning, read, checksum, unwrap = form
            begun, payload, expected = read(chunk)
            if begun == beginning and crc32(payload, checksum) == expected:
                if unwrap is None or (payload := unwrap(payload)):
                    return (payload,)
                return ()
        found: list[bytes] = []
        try:
            self._cut(chunk, found)
        except BackendError as error:
            return _before(found, error)
        return found

    def end(self) -> Iterator[bytes]:
        """Make sure that the body did not end within a frame; nothing is left to yield."""
        if self._pieces:
            raise StreamTruncated("the upstream's stream ended within a frame")
        yield from ()

    def _cut(self, body: bytes, found: list[bytes]) -> None:
        """Add what the frames hold that are whole, and keep the rest."""
        forms, start, end = self._forms, 0, len(body)
        while end - start >= _PRELUDE_BYTES:
            size, headers = _lengths(body, start)
            following = start + size
            if following > end or size > MAX_FRAME_BYTES:
                break
            meant, form = None, forms.get(size)
            if form is not None:
                beginning, read, checksum, unwrap = form
                begun, payload, expected = read(body, start)
                if begun == beginning and crc32(payload, checksum) == expected:
                    meant = payload if unwrap is None else unwrap(payload)
            if meant is None:
                meant = self._read(body[start:following], headers)
            if meant:
                found.append(meant)
            start = following
        if start < end:
            self._keep(body[start:])

    def _read(self, frame: bytes, headers: int) -> bytes:
        """Return what one frame stands for.

        Raises:
            BackendError: it is damaged, or the stream's error.
        """
        beginning = frame[: _PRELUDE_BYTES + headers]
        read = _beginning if headers <= MAX_REMEMBERED_BYTES else _read_beginning
        rest, checksum, kind, told, failed = read(beginning)
        _, payload, expected = rest(frame)
        if crc32(payload, checksum) != expected:
            raise ProtocolError(_DAMAGED)
        if failed:
            raise _error(told, payload)
        unwrap = self._unwrapping(kind)
        if payload and headers <= MAX_REMEMBERED_BYTES:
            if len(self._forms) >= MAX_REMEMBERED:
                self._forms.clear()
            self._forms[len(frame)] = beginning, rest, checksum, unwrap
        return payload if unwrap is None else unwrap(payload)

    def _keep(self, rest: bytes) -> None:
        """Keep the beginning of a frame until there is more of it.

        Raises:
            ProtocolError: it says that it will be too long, or is damaged.
        """
        self._pieces, self._size, self._wanted = [rest], len(rest), _PRELUDE_BYTES
        if len(rest) >= _PRELUDE_BYTES:
            self._wanted = _checked(rest)[0]
            if self._wanted > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame is longer than {MAX_FRAME_BYTES} bytes")


def _before(found: list[bytes], error: BackendError) -> Iterator[bytes]:
    """Give what came before an error, then raise it."""
    yield from found
    raise error


def _checked(frame: bytes) -> tuple[int, int]:
    """Return the lengths of a frame and of its headers.

    Raises:
        ProtocolError: their checksum is another, or there is none.
    """
    if len(frame) < _PRELUDE_BYTES:
        raise ProtocolError("a frame of the upstream's stream says that it is shorter than any")
    size, headers, expected = _prelude(frame)
    if crc32(frame[:8]) != expected:
        raise ProtocolError("a frame of the upstream's stream: checksum mismatch in its prelude")
    return size, headers


def _read_beginning(data: bytes) -> _Beginning:
    """Read what stands before a frame's payload.

    Raises:
        ProtocolError: it is damaged.
    """
    from botocore import eventstream

    size, length = _checked(data)
    payload = size - len(data) - _CHECKSUM_BYTES
    try:
        if payload < 0 or length != len(data) - _PRELUDE_BYTES:
            raise ValueError("it is shorter than its headers")
        headers = eventstream.EventStreamHeaderParser().parse(data[_PRELUDE_BYTES:])
    except (eventstream.ParserError, StructError, ValueError, LookupError) as error:
        raise ProtocolError(f"a frame of the upstream's stream: {error}") from error
    return _Beginning(
        Struct(f">{len(data)}s{payload}sI").unpack_from,
        crc32(data),
        str(headers.get(":event-type")),
        headers,
        headers.get(":message-type") in ("exception", "error"),
    )


_beginning: Final = lru_cache(maxsize=MAX_REMEMBERED)(_read_beginning)


@lru_cache(maxsize=16)
def _forms(unwrapping: Unwrapping) -> dict[int, _Form]:
    """Return how the frames of all streams of a kind began, by length: they begin alike."""
    del unwrapping
    return {}


def named(kind: str) -> Unwrap | None:
    """Say how an event of Converse is unwrapped: to an object whose only key says what it is.

    A piece of content, of which a stream has most, stays as it is: nothing else has a ``delta``.
    """
    if kind == "contentBlockDelta":
        return None
    key = kind.encode()
    return lambda payload: b'{"%b":%b}' % (key, payload or b"{}")


class _Chunk(msgspec.Struct, gc=False):
    data: bytes = msgspec.field(name="bytes", default=b"")
    """Base64 in JSON."""


_chunk: Final = msgspec.json.Decoder(_Chunk).decode


def invoked(kind: str) -> Unwrap:
    """Say how an event of ``invoke-with-response-stream`` is unwrapped."""
    return _model_event if kind == "chunk" else _nothing


def parts(kind: str) -> Unwrap | None:
    """Say how an event of SageMaker is unwrapped: a piece of the container's body, cut anywhere."""
    return None if kind == "PayloadPart" else _nothing


def _model_event(payload: bytes) -> bytes:
    """Return the model's own event, which comes in base64.

    What cannot be read is passed on as it is, so that it is counted as dropped.
    """
    try:
        return _chunk(payload).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b"\0" + payload


def _nothing(payload: bytes) -> bytes:
    """Leave an event out."""
    del payload
    return b""


def _error(headers: Mapping[str, Any], payload: bytes) -> BackendError:
    """Return what a frame that is no event stands for."""
    name = str(headers.get(":exception-type") or headers.get(":error-code") or "")
    document = read_document(payload) or {}
    message = error_words(document).message or str(headers.get(":error-message") or "")
    plain = name.lower()
    status = original_status(document)
    status = status or next((s for start, s in _STATUS_OF.items() if plain.startswith(start)), None)
    return classify(
        status, message or f"the upstream's stream broke with {name or 'an error'}", code=name
    )
