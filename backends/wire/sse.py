"""Server-sent events: bytes in, the data of each event out.

Source: WHATWG HTML, section 9.2 "Server-sent events" (read 2026-11). Only ``data`` and
``event`` matter to model streams; comments, ``id`` and ``retry`` are skipped.
"""

from __future__ import annotations

import codecs
from typing import Final

MAX_EVENT_BYTES: Final = 1024 * 1024
"""An event longer than this is not a model's; reading on would only fill memory."""


class EventTooLong(ValueError):
    """One event passed ``MAX_EVENT_BYTES``."""


class SSEDecoder:
    """Cuts a byte stream into event data, whatever the reads' boundaries.

    Lines may end in LF, CRLF or CR; several ``data`` lines of one event are joined by LF.
    An event that the stream's end cuts off before its blank line is not delivered.
    """

    __slots__ = ("_after_cr", "_data", "_first", "_rest")

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""
        self._data: list[bytes] = []
        self._first = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of each event that ``chunk`` completes.

        Raises:
            EventTooLong: no event ended within the bound.
        """
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r") if chunk else self._after_cr
        buffer = self._rest + chunk
        if b"\r" in buffer:
            buffer = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = buffer.split(b"\n")
        self._rest = lines.pop()
        if self._first and (lines or len(self._rest) >= 3):
            self._first = False
            if lines:
                lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
            else:
                self._rest = self._rest.removeprefix(codecs.BOM_UTF8)
        events = [data for line in lines if (data := self._line(line)) is not None]
        if len(self._rest) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            if not self._data:
                return None
            data = b"\n".join(self._data)
            self._data.clear()
            return data
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._data.append(b"")
        return None
