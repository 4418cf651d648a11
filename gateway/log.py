"""Logs: a JSON object a line on standard error; the lines of requests once a tick."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

access = logging.getLogger("tollway.access")
log = logging.getLogger("tollway")

MAX_LINES: Final = 32
"""Lines that wait for the next tick; more are written at once."""


class AccessLog:
    """The lines of requests that ended, written at the next tick.

    A worker that is killed loses those of its last quarter of a second; money is not in them.
    """

    def __init__(self) -> None:
        """No line waits."""
        self._lines: list[tuple[float, dict[str, Any]]] = []

    def add(self, fields: dict[str, Any]) -> None:
        """Keep a line."""
        self._lines.append((time.time(), fields))
        if len(self._lines) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Write all that wait, as one record."""
        lines, self._lines = self._lines, []
        if lines:
            access.info("request", extra={"lines": lines})


def log_fault(error: Exception, request_id: str) -> None:
    """Log a fault of our own with its trace."""
    log.error("a handler failed", exc_info=error, extra={"fields": {"request_id": request_id}})


class JSONFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record; ``extra={"fields": {...}}`` adds to it.

        ``extra={"lines": [(unix seconds, fields), ...]}`` makes it that many lines.
        """
        given = getattr(record, "lines", None) or ((record.created, getattr(record, "fields", {})),)
        return "\n".join(self._line(record, at, fields) for at, fields in given)

    def _line(self, record: logging.LogRecord, at: float, fields: dict[str, Any]) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(level: int = logging.INFO) -> None:
    """Send this process's logs to standard error, a JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
