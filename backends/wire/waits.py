"""How long an upstream asks to wait, in all the places and forms in which it may say so.

Sources: RFC 9110 10.2.3 (Retry-After), google.rpc.RetryInfo, and recorded rate-limit headers of
OpenAI, Anthropic, Azure, Mistral and OpenRouter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SPANS: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH_S: Final = 1e9
"""A number as large as this is no span but a point in time, in seconds since 1970 ..."""
_EPOCH_MS: Final = 1e12
"""... or in milliseconds."""


def wait_s(
    headers: Mapping[str, str], document: Mapping[str, Any], *, limited: bool
) -> float | None:
    """Find how long to wait, seconds; None if nothing says so.

    Args:
        headers: the answer's, by lower-case names.
        document: its decoded body.
        limited: it is a rate limit: then the headers that count what remains are asked as well.
    """
    now = _now(headers)
    if (wait := retry_after_s(headers.get("retry-after"), now)) is not None:
        return wait
    if (wait := retry_after_s(headers.get("retry-after-ms"))) is not None:
        return wait / 1000
    if (wait := _google_s(document)) is not None or not limited:
        return wait
    wait = _reset_s(headers, now)
    return _reset_s(_routers(document), now) if wait is None else wait


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Read a Retry-After header (seconds or a date); None if unreadable."""
    if value is None:
        return None
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(value) - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait) if math.isfinite(wait) else None


def _now(headers: Mapping[str, str]) -> datetime:
    """Return the upstream's own time, by which it also says when a limit is over."""
    try:
        now = parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError, TypeError):
        return datetime.now(UTC)
    return now if now.tzinfo is not None else now.replace(tzinfo=UTC)


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
    """
    waits = []
    for name, remaining in headers.items():
        if "ratelimit" in name and "remaining" in name and remaining.strip() == "0":
            wait = _until_s(headers.get(name.replace("remaining", "reset")), now)
            if wait is not None:
                waits.append(wait)
    return max(waits, default=None)


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
