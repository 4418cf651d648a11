"""What an upstream's error says, in whichever of many shapes: its words, its code, its field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from backends.errors import MAX_WHOLE_CHARS
from backends.redaction import cut

_WRAPPED: Final = 4
"""How often an error may stand in another one: as an object, a list, or JSON in its message."""

_WORDS: Final = (
    "message", "Message", "faultstring", "detail", "msg", "error_message", "error_msg",
    "status_msg", "error_description", "description", "error", "title", "fault",
)  # fmt: skip
_BESIDE: Final = ("error_description", "description", "detail")
"""What says more than an ``error`` that is no sentence; ``message`` says more than one, too."""

_SENTENCE_WORDS: Final = 4

WITHIN: Final = ("error", "errors", "base_resp")
"""Where in a document its error may stand; the last is MiniMax's."""


def says(error: object) -> bool:
    """Whether a field for an error holds one: some servers fill it with nulls otherwise."""
    return bool(error) and not (isinstance(error, dict) and not any(error.values()))


class Told(NamedTuple):
    """What an error says; empty or None where it does not."""

    message: str = ""
    code: str | None = None
    param: str | None = None
    """The field of the request that is wrong, as OpenAI-like vendors name it."""


def read_error(body: bytes) -> Told:
    """Find what an error body says."""
    document = read_document(body)
    if document is None:
        text = body.decode("utf-8", "replace").strip()
        return Told(
            "" if text.startswith("<") else cut(text, MAX_WHOLE_CHARS)
        )  # no page is for a program
    error = next((document[name] for name in WITHIN if document.get(name)), document)
    if isinstance(error, str):  # the kind's name, where there are other words
        beside = ("message", *(_BESIDE if len(error.split()) < _SENTENCE_WORDS else ()))
        said = (document.get(name) for name in beside)
        if words := next((words for words in said if words and isinstance(words, str)), ""):
            kind = error if "_" in error and " " not in error else None
            error = {"message": words, "code": kind if document.get("code") is None else None}
    told = error_words(error)
    if told.code is None and document.get("code") is not None:
        told = told._replace(code=str(document["code"]))
    return told


def error_words(error: object, wrapped: int = _WRAPPED) -> Told:
    """Return what a decoded error object says, whatever its shape.

    Args:
        error: the object, or its only words.
        wrapped: how many errors that stand within each other are looked into.
    """
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, str):
        return Told(_unwrapped(error, wrapped))
    if not isinstance(error, Mapping):
        return Told()
    words = _words(next((error[name] for name in _WORDS if error.get(name)), ""), wrapped)
    metadata = error.get("metadata")
    if isinstance(metadata, Mapping) and (raw := _words(metadata.get("raw"), wrapped)):
        # What the provider behind a router said, after the router's own words.
        words = f"{words}: {raw}" if words else raw
    param = error.get("param")
    param = param if isinstance(param, str) and param else None
    return Told(words, _code(error), param)


def read_document(body: bytes) -> dict[str, Any] | None:
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


def original_status(document: Mapping[str, Any]) -> int | None:
    """Return the status of the model behind a front, where the front tells it.

    SageMaker's ``ModelError`` and Bedrock's ``ModelErrorException`` come with 424, also where the
    container refused the request (their API references, read 2026-11).
    """
    told = document.get("OriginalStatusCode") or document.get("originalStatusCode")
    return told if isinstance(told, int) and 400 <= told < 600 else None


def _code(error: Mapping[str, Any]) -> str | None:
    """Return an error's code; with Google's the word beside the number, which says more."""
    code, word = error.get("code"), error.get("status")
    is_word = isinstance(word, str) and word.isupper()
    if is_word and (code is None or str(code).isdecimal()):
        code = word
    return None if code is None else str(code)


def _words(said: object, wrapped: int) -> str:
    """Return the words of what stands where an error's words do, which may be another error."""
    if isinstance(said, Mapping | list):
        return error_words(said, wrapped - 1).message if wrapped else ""
    return _unwrapped(str(said), wrapped) if said else ""


def _unwrapped(words: str, wrapped: int) -> str:
    """Return the words of an error that came as the message of another one."""
    if wrapped and words.lstrip().startswith("{"):
        document = read_document(words.encode("utf-8", "surrogatepass"))
        if document and (told := error_words(document.get("error") or document, wrapped - 1))[0]:
            return told.message
    return cut(words, MAX_WHOLE_CHARS)
