"""Messages as Google's contents and parts: turns, media, calls, and signatures handed back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from backends.errors import Unsupported
from backends.wire.custom_tools import function_of
from backends.wire.details import GOOGLE, merge_details

NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""What Google lets stand for the signature of a call that its model did not make, or that a
client did not hand back ("Thought signatures", FAQ, read 2026-11). Without one, models from
Gemini 3 on refuse the whole conversation."""

_TYPES: Final[Mapping[str, str]] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "m4a": "audio/m4a",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mpeg": "video/mpeg",
}
"""Media types by the end of a name."""


def encode_messages(messages: Sequence[Mapping[str, Any]], *, signatures: bool) -> dict[str, Any]:
    """Return ``contents`` and, where there are any, ``systemInstruction``.

    Args:
        messages: in the canonical shape.
        signatures: whether the first call of a turn needs one, be it only ``NO_SIGNATURE``.

    Raises:
        Unsupported: something in them cannot be said on this wire.
    """
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    answering = False
    for message in messages:
        role, parts = message["role"], _parts(message.get("content"))
        answers = role == "tool"
        if role in ("system", "developer"):
            if any("text" not in part for part in parts):
                raise Unsupported("a system message to this endpoint can hold only text")
            system += parts
            continue
        if role == "assistant":
            parts = _turn(message, parts, names, signatures=signatures)
        elif answers:
            parts = [_result(message, parts, names)]
        if answers and answering:
            contents[-1]["parts"] += parts  # one turn answers all calls of the turn before
        elif parts:
            contents.append({"role": "model" if role == "assistant" else "user", "parts": parts})
        answering = answers
    if not contents:  # which would be refused
        return {"contents": [{"role": "user", "parts": system}]}
    return {"contents": contents, **({"systemInstruction": {"parts": system}} if system else {})}


def _turn(
    message: Mapping[str, Any],
    said: list[dict[str, Any]],
    names: dict[str, str],
    *,
    signatures: bool,
) -> list[dict[str, Any]]:
    """Return the parts of a model's turn, signatures on those that they belong to."""
    calls = [_call(call, names) for call in message.get("tool_calls") or ()]
    details: list[Any] = []
    merge_details(details, message.get("reasoning_details") or ())
    by_id = {part["functionCall"].get("id"): part for part in calls}
    thoughts, loose = [], []
    for detail in details:
        if not isinstance(detail, dict) or detail.get("format") != GOOGLE:
            continue
        text, signature, data = detail.get("text"), detail.get("signature"), detail.get("data")
        if signature:  # thoughts without one say nothing to the model
            thoughts.append({"text": text or "", "thought": True, "thoughtSignature": signature})
        elif data and (part := by_id.get(detail.get("id"))) is not None:
            part["thoughtSignature"] = data
        elif data:
            loose.append(data)
    if calls and signatures:
        calls[0].setdefault("thoughtSignature", NO_SIGNATURE)
    if loose:
        if not said or "text" not in said[-1]:
            said = [*said, {"text": ""}]
        said[-1]["thoughtSignature"] = loose.pop()
    said = [*({"text": "", "thoughtSignature": data} for data in loose), *said]
    return [*thoughts, *said, *calls]


def _call(call: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return a ``functionCall`` part, and note its name for the result."""
    function = function_of(call)
    native: dict[str, Any] = {"name": function["name"]}
    if isinstance(call.get("id"), str):
        native["id"] = call["id"]
        names[call["id"]] = function["name"]
    arguments = _object(function.get("arguments") or "{}")
    if arguments is None:
        raise Unsupported(
            f"'tool_calls': the arguments of {function['name']!r} must be a JSON object"
        )
    return {"functionCall": {**native, "args": arguments}}


def _result(
    message: Mapping[str, Any], parts: list[dict[str, Any]], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return a ``functionResponse`` part: it goes by the name of the function it answers."""
    of = message["tool_call_id"]
    name = names.get(of) or message.get("name")
    if not name:
        raise Unsupported(f"'tool_call_id': no call before it has the id {of!r}")
    text = "".join(part.get("text", "") for part in parts)
    media = [part for part in parts if "text" not in part]
    response = {"error": text} if message.get("is_error") else _object(text) or {"output": text}
    native: dict[str, Any] = {"id": of, "name": name, "response": response}
    if media:
        native["parts"] = media
    return {"functionResponse": native}


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_part(part) for part in content or ()]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    value = part[kind]
    match kind:
        case "text" | "refusal":
            return {"text": value}
        case "image_url" | "video_url":
            return _media(kind, value.get("url"))
        case "input_audio":
            data, form = value["data"], value["format"]
            return {"inlineData": {"mimeType": _TYPES.get(form, f"audio/{form}"), "data": data}}
        case "file":
            where = value.get("file_data") or value.get("file_url") or value.get("file_id")
            return _media(kind, where, str(value.get("filename") or ""))
        case _:
            raise Unsupported(f"this endpoint takes no {kind!r}")


def _media(kind: str, url: Any, filename: str = "") -> dict[str, Any]:
    """Return media that came inline, or under a public address that Google itself reads.

    None in a bucket: Google would read it with our own credentials.
    """
    if isinstance(url, str) and url[:5].lower() == "data:":
        return {"inlineData": _inline(kind, url)}
    guessed = _TYPES.get(filename.rpartition(".")[2].lower()) if filename else None
    if isinstance(url, str) and url.startswith("https://"):
        path = url.partition("?")[0].partition("#")[0]
        guessed = guessed or _TYPES.get(path.rpartition(".")[2].lower())
        return {"fileData": {"fileUri": url, **({"mimeType": guessed} if guessed else {})}}
    if kind == "file" and isinstance(url, str) and guessed and _is_base64(url):
        return {"inlineData": {"mimeType": guessed, "data": url}}
    raise Unsupported(f"{kind!r}: this endpoint takes data: and https: URLs")


def _inline(kind: str, url: str) -> dict[str, str]:
    """Read a ``data:`` URL (RFC 2397)."""
    head, comma, data = url[5:].partition(",")
    words = [word.strip() for word in head.split(";")]
    if not comma or "/" not in words[0]:
        raise Unsupported(f"{kind!r}: a data: URL must name its type, as data:image/png;base64")
    if "base64" not in (word.lower() for word in words[1:]):
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return {"mimeType": words[0], "data": data}


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _object(text: str) -> dict[str, Any] | None:
    """Read a JSON object; None if it is none."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
