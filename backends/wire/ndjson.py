"""Newline-delimited JSON: bytes in, one payload a line out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from backends.wire.sse import MAX_EVENT_BYTES, EventTooLong

_BRACE: Final = ord("{")


class NDJSONDecoder:
    """Cuts a byte stream into lines, whatever the reads' boundaries; empty ones are skipped."""

    __slots__ = ("_rest", "_size")

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """Return each line that ``chunk`` completes.

        Raises:
            EventTooLong: no line ended within ``sse.MAX_EVENT_BYTES``; raised when reached.
        """
        size = len(chunk)
        if (
            0 < size <= MAX_EVENT_BYTES
            and chunk[0] == _BRACE
            and chunk.find(b"\n") == size - 1
            and not self._rest
        ):
            return (chunk[:-1],)  # one line in one read, as paced streams come
        return self._cut(chunk)

    def _cut(self, chunk: bytes) -> Iterator[bytes]:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            if self._rest or len(line) > MAX_EVENT_BYTES:
                self._keep(line)
                yield from self.end()
            elif line and not line.isspace():
                yield line
        if rest:
            self._keep(rest)

    def end(self) -> Iterator[bytes]:
        """The stream ended: yield a line that only lacks its end."""
        line = b"".join(self._rest).rstrip()
        self._rest.clear()
        self._size = 0
        if line:
            yield line

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_EVENT_BYTES:
            raise EventTooLong(f"a line is longer than {MAX_EVENT_BYTES} bytes")
        self._rest.append(piece)
