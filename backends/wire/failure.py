"""Error bodies of every shape that upstreams send, and how long they ask to wait."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from backends.errors import BackendError, classify

_MOST_CHARS: Final = 2000
_DELAY: Final = re.compile(r"^(\d+(?:\.\d+)?)s$")
_STATUS_OF: Final[Mapping[str, int]] = {
    # Anthropic's and OpenAI's types, as they come in streams, without a status.
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    # TGI's.
    "validation": 422,
    "generation": 424,
    "overloaded": 429,
    "incomplete_generation": 500,
}


def refusal(status: int, phrase: str, headers: Mapping[str, str], body: bytes) -> BackendError:
    """Return what an HTTP answer of 300 or above stands for.

    Args:
        status: the upstream's status. A redirect would carry our key elsewhere: it is refused.
        phrase: its reason phrase.
        headers: its headers, looked up by lower-case names.
        body: the beginning of its body.
    """
    document = _document(body)
    message, code = read_error(body)
    return classify(
        status,
        message or f"the upstream answered {status} {phrase}",
        code=_reason(document) or code,
        retry_after_s=_wait_s(headers, document),
    )


def stream_error(document: Any) -> BackendError:
    """Return the error that a document inside an accepted answer stands for.

    Args:
        document: the payload that holds ``error``, or the error itself.
    """
    error = document.get("error") or document if isinstance(document, Mapping) else document
    message, code = error_words(error)
    outer = document if isinstance(document, Mapping) else {}
    inner = error if isinstance(error, Mapping) else {}
    if not message:
        message = "the upstream reported an error in its stream"
    kinds = [str(k) for k in (inner.get("type"), code, outer.get("error_type")) if k]
    for number in (inner.get("code"), inner.get("status_code"), outer.get("status_code")):
        if isinstance(number, int) and 400 <= number < 600:
            return classify(number, message, retry_after_s=_wait_s({}, outer))
    status = next((_STATUS_OF[kind] for kind in kinds if kind in _STATUS_OF), 502)
    return classify(status, message, code=code, retry_after_s=_wait_s({}, outer))


def read_error(body: bytes) -> tuple[str, str | None]:
    """Find message and code in an error body; ("", None) if there is none."""
    document = _document(body)
    if document is None:
        return body.decode("utf-8", "replace").strip()[:500], None
    message, code = error_words(document.get("error") or document)
    if code is None and document.get("code") is not None:
        code = str(document["code"])
    return message, code


def error_words(error: object) -> tuple[str, str | None]:
    """Return message and code of a decoded error object, whatever its shape."""
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, str):
        return error[:_MOST_CHARS], None
    if not isinstance(error, Mapping):
        return "", None
    words = error.get("message") or error.get("Message") or error.get("detail") or ""
    if isinstance(words, list) and words:
        words = words[0]
    if isinstance(words, Mapping):
        words = words.get("msg") or words.get("message") or msgspec.json.encode(words).decode()
    code = error.get("code")
    return str(words)[:_MOST_CHARS], str(code) if code is not None else None


def retry_after_s(value: str | None) -> float | None:
    """Read a Retry-After header (RFC 9110 10.2.3: seconds or a date); None if unreadable."""
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait_s) if math.isfinite(wait_s) else None


def _document(body: bytes) -> dict[str, Any] | None:
    """Read an error body as a JSON object; None if it is none."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(document, list) and document:
        document = document[0]
    if isinstance(document, dict):
        return document
    return {"error": document} if isinstance(document, str) else {}


def _wait_s(headers: Mapping[str, str], document: Mapping[str, Any] | None) -> float | None:
    """Find how long to wait: a header in seconds or milliseconds, or Google's RetryInfo."""
    wait_s = retry_after_s(headers.get("retry-after"))
    if wait_s is None and (value := headers.get("retry-after-ms")) is not None:
        wait_ms = retry_after_s(value)
        wait_s = None if wait_ms is None else wait_ms / 1000
    if wait_s is not None:
        return wait_s
    for entry in _details(document):
        delay = entry.get("retryDelay")
        if isinstance(delay, str) and (match := _DELAY.match(delay)):
            return float(match[1])
    return None


def _reason(document: Mapping[str, Any] | None) -> str | None:
    """Find the reason in Google's ErrorInfo; it says more than the status and its number."""
    for entry in _details(document):
        reason = entry.get("reason")
        if isinstance(reason, str) and reason:
            return reason
    return None


def _details(document: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the entries that Google adds to an error."""
    error = document.get("error") if document else None
    details = error.get("details") if isinstance(error, dict) else None
    return [e for e in details if isinstance(e, dict)] if isinstance(details, list) else []
