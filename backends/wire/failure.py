"""Error bodies of every shape that upstreams send, and how long they ask to wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.errors import BackendError, classify, is_telling
from backends.wire.error_words import (
    WITHIN,
    error_words,
    original_status,
    read_document,
    read_error,
)
from backends.wire.waits import wait_s

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
    # Bedrock's, as they come in streams.
    "validationException": 400,
    "modelTimeoutException": 408,
    "throttlingException": 429,
    "modelStreamErrorException": 500,
    "internalServerException": 500,
    "serviceUnavailableException": 503,
}

_MINIMAX_STATUS_OF: Final[Mapping[int, int]] = {
    1001: 408, 1002: 429, 1004: 401, 1008: 402, 1026: 400, 1027: 400, 1039: 429, 1041: 429,
    1042: 400, 2013: 400, 2045: 429, 2049: 401, 2056: 429,
}  # fmt: skip
"""MiniMax's codes, which come with HTTP 200 (its API reference, "Error Codes", read 2026-12)."""

_MINIMAX_FILTERED: Final = frozenset({1026, 1027})
_ANSWERS: Final = (
    "choices", "content", "candidates", "output", "generated_text", "embeddings", "data", "delta",
    "response", "token", "result",
)  # fmt: skip
"""One of these holds what an answer says, whatever its wire."""


def refusal(status: int, phrase: str, headers: Mapping[str, str], body: bytes) -> BackendError:
    """Return what an HTTP answer of 300 or above stands for.

    Args:
        status: the upstream's status. A redirect would carry our key elsewhere: it is refused.
        phrase: its reason phrase.
        headers: its headers, looked up by lower-case names.
        body: the beginning of its body.
    """
    document = read_document(body) or {}
    told = read_error(body)
    return classify(
        original_status(document) or status,
        told.message or f"the upstream answered {status} {phrase}".rstrip(),
        code=_telling(document, headers, told.code),
        retry_after_s=wait_s(headers, document, limited=status == 429, words=told.message),
        param=told.param,
        named=_named(document),
    )


def stream_error(document: Any) -> BackendError:
    """Return the error that a document inside an accepted answer stands for.

    Args:
        document: the payload that holds ``error``, or the error itself.
    """
    outer: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
    error: Any = next((outer[name] for name in WITHIN if outer.get(name)), document)
    if isinstance(error, list) and error:
        error = error[0]
    elif error is (base := outer.get("base_resp")) and isinstance(base, Mapping):
        error = _minimax(base)
        outer = {"error": error}
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    told = error_words(error)
    code = told.code
    status = _status_in(inner) or _status_in(outer)
    if status is None:
        kinds = [str(kind) for kind in (inner.get("type"), code, outer.get("error_type")) if kind]
        status = next((_STATUS_OF[kind] for kind in kinds if kind in _STATUS_OF), None)
    elif code == str(status):
        code = None
    return classify(
        status,
        told.message or "the upstream reported an error in its stream",
        code=_telling(outer, {}, code),
        retry_after_s=wait_s({}, outer, limited=status in (429, None), words=told.message),
        param=told.param,
        named=_named(outer),
    )


def error_in(text: bytes, *, named: bool = False) -> BackendError | None:
    """Return the error that a document within an accepted answer tells; None if it tells none.

    For what failed as an answer: a good one may well have a ``message`` or ``detail``.

    Args:
        text: the document.
        named: believe only what stands in ``error``.
    """
    is_object = text[:64].lstrip(b" \t\r\n[").startswith(b"{")
    document = read_document(text) if is_object else None
    if not document:
        return None
    if document.get("error"):
        return stream_error(document)
    if named or any(document.get(name) not in (None, [], {}) for name in _ANSWERS):
        return None
    base = document.get("base_resp")
    if isinstance(base, Mapping):
        return stream_error(document) if base.get("status_code") else None
    kind = document.get("object") or document.get("type")
    of_a_wire = isinstance(kind, str) and "error" not in kind and kind not in _STATUS_OF
    if of_a_wire or document.get("code") in (0, 200):
        return None
    told = error_words(document.get("errors") or document)
    return stream_error(document) if told.message else None


def _minimax(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return MiniMax's error in the shape of others."""
    code = base.get("status_code")
    number = code if isinstance(code, int) else 0
    error = {"code": code, "message": base.get("status_msg")}
    error["status"] = _MINIMAX_STATUS_OF.get(number)
    error["type"] = "content_filter" if number in _MINIMAX_FILTERED else None
    return error


def _status_in(document: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error names, as a number or in digits."""
    for name in ("code", "status_code", "status"):
        digits = str(document.get(name))
        if len(digits) == 3 and digits.isdecimal() and 400 <= int(digits) < 600:
            return int(digits)
    return None


def _named(document: Mapping[str, Any]) -> str | None:
    """Return the type of an error, where it has one."""
    error = document.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    found = (inner.get("type"), document.get("error_type"), document.get("type"))
    return next((each for each in found if isinstance(each, str) and each), None)


def _telling(
    document: Mapping[str, Any], headers: Mapping[str, str], code: str | None
) -> str | None:
    """Return the code that says most: of those an error has, or the plain one."""
    error = document.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    deeper = inner.get("innererror")
    details = inner.get("details")
    found: list[Any] = [code, inner.get("type"), document.get("error_type"), document.get("type")]
    found.append(deeper.get("code") if isinstance(deeper, Mapping) else None)
    if isinstance(details, list):
        found += [entry.get("reason") for entry in details if isinstance(entry, Mapping)]
    amazon = (headers.get("x-amzn-errortype") or "").partition(":")[0] or None
    found += [amazon, str(document.get("__type") or "").rpartition("#")[2]]
    telling = (each for each in found if isinstance(each, str) and is_telling(each))
    return next(telling, code or amazon)
