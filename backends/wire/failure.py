"""Error bodies of every shape that upstreams send, and how long they ask to wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from backends.errors import BackendError, classify, is_telling
from backends.wire.waits import wait_s

_MOST_CHARS: Final = 2000
_WRAPPED: Final = 2
"""How often an error may stand in another one's message."""

_WORDS: Final = ("message", "Message", "detail", "msg", "error_message", "error")
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


def refusal(status: int, phrase: str, headers: Mapping[str, str], body: bytes) -> BackendError:
    """Return what an HTTP answer of 300 or above stands for.

    Args:
        status: the upstream's status. A redirect would carry our key elsewhere: it is refused.
        phrase: its reason phrase.
        headers: its headers, looked up by lower-case names.
        body: the beginning of its body.
    """
    document = _document(body) or {}
    message, code = read_error(body)
    return classify(
        status,
        message or f"the upstream answered {status} {phrase}".rstrip(),
        code=_telling(document, headers, code),
        retry_after_s=wait_s(headers, document, limited=status == 429),
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
            given = None if code is None or code.isdecimal() else code
            return classify(
                number,
                message,
                code=_telling(outer, {}, given),
                retry_after_s=wait_s({}, outer, limited=number == 429),
            )
    status = next((_STATUS_OF[kind] for kind in kinds if kind in _STATUS_OF), 502)
    found = _telling(outer, {}, code)
    return classify(status, message, code=found, retry_after_s=wait_s({}, outer, limited=True))


def read_error(body: bytes) -> tuple[str, str | None]:
    """Find message and code in an error body; ("", None) if there is none."""
    document = _document(body)
    if document is None:
        text = body.decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text[:500], None  # a page says nothing to a program
    error = document.get("error") or document.get("errors") or document
    if isinstance(error, str) and isinstance(document.get("message"), str):
        error = {"message": document["message"] or error}  # ``error`` is the kind's name
    message, code = error_words(error)
    if code is None and document.get("code") is not None:
        code = str(document["code"])
    return message, code


def error_words(error: object, wrapped: int = _WRAPPED) -> tuple[str, str | None]:
    """Return message and code of a decoded error object, whatever its shape.

    Args:
        error: the object, or its only words.
        wrapped: how many errors that stand within its message are looked into.
    """
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, str):
        return _unwrapped(error, wrapped), None
    if not isinstance(error, Mapping):
        return "", None
    words = next((error[name] for name in _WORDS if error.get(name)), "")
    if isinstance(words, list) and words:
        words = words[0]
    if isinstance(words, Mapping):
        words = words.get("msg") or words.get("message") or ""
    metadata = error.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(raw := metadata.get("raw"), str) and raw:
        # What the provider behind a router said, after the router's own words.
        words = f"{words}: {_unwrapped(raw, wrapped)}" if words else raw
    code = error.get("code")
    return _unwrapped(str(words), wrapped), str(code) if code is not None else None


def _unwrapped(words: str, wrapped: int) -> str:
    """Return the words of an error that came as the message of another one."""
    if wrapped and words.lstrip().startswith("{"):
        document = _document(words.encode("utf-8", "surrogatepass"))
        if document:
            inner, _ = error_words(document.get("error") or document, wrapped - 1)
            return inner
    return words[:_MOST_CHARS]


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
    found.append(amazon)
    telling = (each for each in found if isinstance(each, str) and is_telling(each))
    return next(telling, code or amazon)


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
