"""How long an upstream asks to wait, in all the places and forms in which it may say so.

Sources: RFC 9110 10.2.3 (Retry-After), google.rpc.RetryInfo, and recorded rate-limit headers and
words of OpenAI, Anthropic, Azure, Groq, Mistral and OpenRouter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

_NUMBER: Final = r"\d{1,12}(?:\.\d+)?"
_SPAN: Final = re.compile(rf"({_NUMBER})\s?(ms|milli|[smhd])")
_SPANS: Final = re.compile(rf"(?:{_NUMBER}(?:ms|[smhd]))+")
_UNIT_S: Final = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME: Final = (
    rf"{_NUMBER}\s?(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)(?![a-z])"
)
_SAID: Final = re.compile(
    rf"(?:try again|retry|wait)(?:\s+(?:again|your request|in|after|for|at least|about)){{0,3}}"
    rf"\s+({_TIME}(?:\s?{_TIME})*)",
    re.IGNORECASE,
)
"""``Please try again in 6m0s``, ``retry after 20 seconds``."""

_EPOCH_S: Final = 1e9
"""A number as large as this is no span but a point in time, in seconds since 1970 ..."""
_EPOCH_MS: Final = 1e12
"""... or in milliseconds."""

MAX_WAIT_S: Final = 86_400.0
"""No upstream is believed that asks for more; a caller gets a number that a program can read."""


def wait_s(
    headers: Mapping[str, str], document: Mapping[str, Any], *, limited: bool, words: str = ""
) -> float | None:
    """Find how long to wait, seconds, at most ``MAX_WAIT_S``; None if nothing says so.

    Args:
        headers: the answer's, by lower-case names.
        document: its decoded body.
        limited: it is a rate limit: then the headers that count what remains are asked as well ...
        words: ... and the error's sentence, where nothing else says it.
    """
    wait = _told_s(headers, document, limited=limited, words=words)
    return None if wait is None else min(wait, MAX_WAIT_S)


def _told_s(
    headers: Mapping[str, str], document: Mapping[str, Any], *, limited: bool, words: str
) -> float | None:
    """Return the wait as it is told, however long."""
    now = _date(headers.get("date")) or datetime.now(UTC)
    asked = headers.get("retry-after")
    if (wait := retry_after_s(asked, now)) is not None:
        return wait
    if asked and _SPANS.fullmatch(asked.strip()):  # ``20s``, which no standard knows
        return _span_s(asked)
    if (wait := retry_after_s(headers.get("retry-after-ms"))) is not None:
        return wait / 1000
    if (wait := _google_s(document)) is not None or not limited:
        return wait
    for given in (headers, _routers(document)):
        if (wait := _reset_s(given, now)) is not None:
            return wait
    return _said_s(words)


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Read a Retry-After header (seconds or a date); None if unreadable."""
    if value is None:
        return None
    try:
        wait = float(value)
    except ValueError:
        if (date := _date(value)) is None:
            return None
        wait = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, wait) if math.isfinite(wait) else None


def _date(value: str | None) -> datetime | None:
    """Read a date of HTTP's: of Retry-After, or the upstream's own time; None if unreadable."""
    try:
        date = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, OverflowError):  # the last: a zone of years
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _google_s(document: Mapping[str, Any]) -> float | None:
    error = document.get("error")
    details = error.get("details") if isinstance(error, Mapping) else None
    for entry in details if isinstance(details, list) else ():
        delay = entry.get("retryDelay") if isinstance(entry, Mapping) else None
        if isinstance(delay, str) and _SPANS.fullmatch(delay):
            return _span_s(delay)
    return None


def _reset_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return when the last of the limits that are used up is over.

    A limit of which something remains refused nothing: its reset says nothing of this request.
    Where none is known to be used up, those count of which nobody says what remains; the first of
    them, because any may be the one.
    """
    used_up: list[float] = []
    unknown: list[float] = []
    for name, value in headers.items():
        if "reset" not in name or "ratelimit" not in name.replace("-", ""):
            continue
        remaining = headers.get(name.removesuffix("-after").replace("reset", "remaining"))
        found = unknown if remaining is None else used_up
        wait = _until_s(value, now)
        if wait is not None and (remaining is None or remaining.strip() == "0"):
            found.append(wait)
    return max(used_up) if used_up else min(unknown, default=None)


def _said_s(words: str) -> float | None:
    """Return the wait that a sentence asks for."""
    found = _SAID.search(words)
    return None if found is None else _span_s(found[1].lower())


def _until_s(value: str | None, now: datetime) -> float | None:
    """Read a reset: a span (``6m0s``, ``12ms``, ``1``), an ISO time, or time since 1970."""
    value = (value or "").strip()
    if _SPANS.fullmatch(value):
        return _span_s(value)
    try:
        number = float(value)
    except ValueError:
        try:
            point = datetime.fromisoformat(value)
        except ValueError:
            return None
        point = point if point.tzinfo is not None else point.replace(tzinfo=UTC)
        return max(0.0, (point - now).total_seconds())
    if not math.isfinite(number):
        return None
    if number >= _EPOCH_S:
        number = number / (1000 if number >= _EPOCH_MS else 1) - now.timestamp()
    return max(0.0, number)


def _span_s(text: str) -> float:
    return sum(float(number) * _UNIT_S[unit] for number, unit in _SPAN.findall(text))


def _routers(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that OpenRouter repeats in the body, by lower-case names."""
    error = document.get("error")
    metadata = error.get("metadata") if isinstance(error, Mapping) else None
    headers = metadata.get("headers") if isinstance(metadata, Mapping) else None
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in headers.items()}
