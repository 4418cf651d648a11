"""One JSON array that arrives piece by piece: bytes in, the text of each element out.

Google's streams without ``alt=sse`` are such arrays. Only brackets and strings are looked at; what
an element holds, and whether it is JSON at all, is for its reader to find out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from backends.errors import StreamTruncated
from backends.wire.sse import MAX_EVENT_BYTES, EventTooLong

END: Final = b"[DONE]"
"""What stands for the bracket that closes the array: nothing of the answer follows."""

_SEPARATORS: Final = b" \t\r\n,"
_MARK: Final = re.compile(rb'["\[\]{},]')
_QUOTE: Final = re.compile(rb'["\\]')


class JSONArray:
    """Cuts an array into elements, whatever the reads' boundaries; yields ``END`` after them."""

    __slots__ = ("_buffer", "_depth", "_in_text", "_place")

    def __init__(self) -> None:
        """Start before the bracket that opens the array."""
        self._buffer = b""
        self._place = 0
        """How far the buffer, which begins with an unfinished element, has been looked at."""
        self._depth = 0
        """Brackets open; the array's own is the first."""
        self._in_text = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield each element that ``chunk`` completes.

        Raises:
            EventTooLong: an element did not end within the bound.
        """
        self._buffer += chunk
        start = 0
        while mark := self._next():
            kind, place = mark.group(), mark.start()
            if kind == b'"':
                self._in_text = True
            elif kind in b"[{":
                self._depth += 1
                if self._depth == 1:
                    start = place + 1
            elif kind in b"]}":
                self._depth -= 1
            if self._depth <= 1 and kind in b"]},":
                end = place + (self._depth == 1 and kind != b",")
                if element := self._buffer[start:end].strip(_SEPARATORS):
                    _bound(end - start)
                    yield element
                start = place + 1
                if self._depth <= 0:
                    yield END
                    return
        _bound(len(self._buffer) - start)
        self._buffer, self._place = self._buffer[start:], self._place - start

    def end(self) -> Iterator[bytes]:
        """The body ended: yield what is left of an element.

        Raises:
            StreamTruncated: the array did not end.
        """
        if rest := self._buffer.strip(_SEPARATORS):
            yield rest
        raise StreamTruncated("the upstream's stream ended within its array")

    def _next(self) -> re.Match[bytes] | None:
        """Return the next bracket, comma or quote outside a text."""
        buffer = self._buffer
        while self._in_text:
            quote = _QUOTE.search(buffer, self._place)
            if quote is None:
                self._place = len(buffer)
                return None
            if quote.group() == b"\\":
                if quote.end() == len(buffer):  # what it escapes is still to come
                    self._place = quote.start()
                    return None
                self._place = quote.end() + 1
            else:
                self._place, self._in_text = quote.end(), False
        mark = _MARK.search(buffer, self._place)
        self._place = len(buffer) if mark is None else mark.end()
        return mark


def _bound(size: int) -> None:
    if size > MAX_EVENT_BYTES:
        raise EventTooLong(f"an element is longer than {MAX_EVENT_BYTES} bytes")
