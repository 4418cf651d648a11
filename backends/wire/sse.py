"""Server-sent events: bytes in, the data of each event out.

Source: WHATWG HTML, section 9.2 "Server-sent events" (read 2026-11). Only ``data`` matters to
model streams; comments, ``id`` and ``retry`` are skipped, and of ``event`` only errors are told.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Final

COMMENT: Final = b": tollway\n\n"
"""A comment holds proxies and clients back from giving up; parsers skip it."""

MAX_EVENT_BYTES: Final = 1024 * 1024
"""An event longer than this is not a model's; reading on would only fill memory."""

MAX_STRAY_BYTES: Final = 16 * 1024
_ERROR: Final = b"error:"
"""A field of no specification: llama.cpp's server, until 2025, put the error of a stream in it."""

_FIELDS: Final = (b":", b"event:", b"id:", b"retry:")

_FIRST: Final = re.compile(
    rb"((?:event:(?!\s*error\s)[^\r\n]*\r?\n)?data: ?)(\{[^\r\n]*)(\n\n|\r\n\r\n)"
)
"""One event whose data is an object on one line, maybe with a name before it."""

_BRACE: Final = ord("{")


class EventTooLong(ValueError):
    """One event passed ``MAX_EVENT_BYTES``."""


def _alike(found: bytes, gap: bytes, lines: int) -> list[bytes]:
    """Return events with only ``gap`` between them, of so many lines; none if there is more."""
    events = found.split(gap)
    ends = (len(events) - 1) * gap.count(b"\n")
    mixed = b"\r" in found and not gap.startswith(b"\r")
    if mixed or lines != ends + 1 or found.endswith((b"\n", b"\r")):
        return []
    # After a bare colon an event may begin with a space, which is not of the data.
    spaced = not gap.endswith(b" ") and gap + b" " in gap + found
    return [] if spaced else events


class SSEDecoder:
    """Cuts a byte stream into event data, whatever the reads' boundaries.

    Lines may end in LF, CRLF or CR; several ``data`` lines of one event are joined by LF.
    """

    __slots__ = (
        "_after_cr", "_alone_bytes", "_data", "_first", "_form", "_name", "_rest", "_size", "stray"
    )  # fmt: skip

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._name = b""
        self._first = True
        self._after_cr = False
        self._alone_bytes = -1
        """How long a read may be that stands for itself: none while something is kept."""

        self._form = b"data: ", b"\n\n", 8
        """How the last read that was one event began and ended around its data, and how many bytes
        both are."""

        self.stray = b""
        """Lines that are of no event stream, up to a bound: some servers break into one with an
        error as a bare document."""

    @property
    def is_error(self) -> bool:
        """Whether the event whose data was returned last, if it is no object, is named so."""
        return self._name[6:].strip() == b"error"

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """Return the data of each event that ``chunk`` completes.

        Raises:
            EventTooLong: no event ended within the bound; what came before it is yielded first.
        """
        if len(chunk) <= self._alone_bytes:
            # Reads of a paced stream look alike: to compare with the last is quicker than to parse.
            lead, tail, around = self._form
            found = chunk.removeprefix(lead).removesuffix(tail)
            if len(chunk) - len(found) == around:
                lines = found.splitlines()
                if len(lines) == 1 and found[0] == _BRACE:
                    return lines
                if lines and (events := _alike(found, tail + lead, len(lines))):
                    return events
            elif (first := _FIRST.match(chunk)) is not None and chunk.endswith(first[3]):
                self._form = first[1], first[3], len(first[1]) + len(first[3])
                return self.feed(chunk)
        return self._cut(chunk) if chunk else ()

    def _cut(self, chunk: bytes) -> Iterator[bytes]:
        second_half = self._after_cr and chunk.startswith(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        if second_half:
            chunk = chunk[1:]
        buffer = self._rest + chunk
        if buffer.find(b"\r") >= 0:
            lines = buffer.splitlines()  # of bytes: at LF, CRLF and CR, and nowhere else
            self._rest = b"" if buffer.endswith((b"\r", b"\n")) else lines.pop()
        else:
            lines = buffer.split(b"\n")
            self._rest = lines.pop()
        if self._first:
            self._skip_mark(lines)
        bounded = self._size + len(buffer) > MAX_EVENT_BYTES  # else no event can be too long
        data = self._data
        for line in lines:
            if line:
                if bounded:
                    self._bound(line)
                if line.startswith(b"data: "):
                    data.append(line[6:])
                    self._size += len(line)
                elif line.startswith(b"event:"):
                    self._name = line
                else:
                    self._line(line)
            else:
                if data:
                    yield data[0] if len(data) == 1 else b"\n".join(data)
                    data.clear()
                    self._size = 0
                self._name = b""
        if bounded:
            self._bound(self._rest)
        between = not (self._rest or data or self._name or self._after_cr or self._first)
        self._alone_bytes = MAX_EVENT_BYTES if between else -1

    def end(self) -> Iterator[bytes]:
        """The stream ended cleanly: yield an event that only lacks its blank line.

        The specification drops it, but there are servers that leave out the last line's end.
        """
        self._line(self._rest)
        self._rest = b""
        if self._data:
            yield b"\n".join(self._data)

    def _skip_mark(self, lines: list[bytes]) -> None:
        """Take off a byte order mark once enough has been read to see it."""
        if lines:
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        elif len(self._rest) >= 3:
            self._rest = self._rest.removeprefix(codecs.BOM_UTF8)
        else:
            return
        self._first = False

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._data.append(b"")
        else:
            if line.startswith(_ERROR):
                line = b'{"error":' + line.removeprefix(_ERROR) + b"}"
            if len(self.stray) < MAX_STRAY_BYTES and not line.startswith(_FIELDS):
                self.stray += line[:MAX_STRAY_BYTES] + b"\n"
            return
        self._size += len(line)

    def _bound(self, line: bytes) -> None:
        if self._size + len(line) > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event is longer than {MAX_EVENT_BYTES} bytes")
