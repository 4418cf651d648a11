"""The recorded exchanges, and which codec each of them is for.

They lie beside the checkout (``../shared/recordings``) and are no part of it; ``own/`` holds
bodies written by hand, which are always there. What only the payloads survive of gets its
framing back here: ``data:`` lines, or AWS frames with good check sums.
"""

from __future__ import annotations

import binascii
import functools
import importlib
import itertools
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.wire.decoder import AnswerDecoder

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
OWN = Path(__file__).resolve().parent / "own"
ABSENT = "the recordings are not beside this checkout (../shared/recordings)"

CHAT = "chat"
COMPLETIONS = "completions"
RESPONSES = "responses"
MESSAGES = "messages"
INVOKE = "invoke"
GEMINI = "gemini"
CONVERSE = "converse"
COHERE = "cohere"
TGI = "tgi"
OLLAMA = "ollama"

DECODERS = {
    CHAT: "backends.wire.openai_chat:StreamDecoder",
    COMPLETIONS: "backends.wire.completions_stream:CompletionsDecoder",
    RESPONSES: "backends.wire.responses_stream:ResponsesDecoder",
    MESSAGES: "backends.wire.messages_stream:MessagesDecoder",
    INVOKE: "backends.wire.bedrock_invoke:InvokeDecoder",
    GEMINI: "backends.wire.gemini_stream:GeminiDecoder",
    CONVERSE: "backends.wire.bedrock_stream:ConverseDecoder",
    COHERE: "backends.wire.cohere_stream:CohereDecoder",
    TGI: "backends.wire.tgi_stream:TGIDecoder",
    OLLAMA: "backends.wire.ollama_stream:OllamaDecoder",
}
"""Each wire's decoder, by name: what is judged here is not imported before it is asked for."""

OTHER_WIRES = {
    "anthropic-messages": MESSAGES,
    "azure-openai-completions": COMPLETIONS,
    "azure-openai-responses": RESPONSES,
    "bedrock-converse": CONVERSE,
    "bedrock-invoke": INVOKE,
    "bedrock-mantle-responses": RESPONSES,
    "cohere-v2": COHERE,
    "deepseek-responses": RESPONSES,
    "github-copilot-responses": RESPONSES,
    "google-gemini": GEMINI,
    "lmstudio-responses": RESPONSES,
    "ollama-native": OLLAMA,
    "openai-completions": COMPLETIONS,
    "openai-responses": RESPONSES,
    "openrouter-responses": RESPONSES,
    "sagemaker": TGI,
    "tgi-native": TGI,
    "vertex-anthropic": MESSAGES,
    "vertex-gemini": GEMINI,
    "xai-responses": RESPONSES,
}
"""The wire of each provider that does not speak OpenAI's chat."""

SETTINGS: dict[str, dict[str, Any]] = {
    "fireworks": {"think_tags": True},
    "hf-router": {"think_tags": True},
    "litellm-proxy": {"one_reason": True},
    "novita": {"think_tags": True},
    "snowflake": {"implied_reason": "stop"},
}
"""What the row of the vendor says of its servers' habits; all others speak as OpenAI does."""

OUT_OF_SCOPE = {
    "aleph-alpha/": "Aleph Alpha",
    "anthropic-complete/": "Anthropic's old /v1/complete",
    "cohere-v1/": "Cohere v1",
    "google-interactions/": "Gemini Interactions",
    "replicate-stream/": "Replicate",
    "watsonx/": "watsonx",
    "bedrock-invoke/content-filter--titan": "Bedrock invoke of a vendor other than Anthropic",
    "bedrock-invoke/content-filter-stream--": "Bedrock invoke of a vendor other than Anthropic",
    "bedrock-invoke/parallel-tools-stream--invoke-model-with-response-stream-with-content": (
        "Bedrock invoke of a vendor other than Anthropic"
    ),
    "bedrock-invoke/text--ai21": "Bedrock invoke of a vendor other than Anthropic",
    "bedrock-invoke/text--imported": "Bedrock invoke of a vendor other than Anthropic",
    "bedrock-invoke/text--invoke-model-no-content-cohere": (
        "Bedrock invoke of a vendor other than Anthropic"
    ),
    "bedrock-invoke/text-stream--cohere": "Bedrock invoke of a vendor other than Anthropic",
    "bedrock-invoke/text-stream--mock-external-bedrock-server-invoke-model--2df964b7": (
        "Bedrock invoke of a vendor other than Anthropic"
    ),
    "bedrock-invoke/text-stream--mock-external-bedrock-server-invoke-model--c5993c7e": (
        "Bedrock invoke of a vendor other than Anthropic"
    ),
    "bedrock-invoke/text-stream--mock-external-bedrock-server-invoke-model--eb39ef07": (
        "Anthropic's old complete, on Bedrock"
    ),
    "bedrock-invoke/text-stream--mock-external-bedrock-server-invoke-model--f1710806": (
        "Bedrock invoke of a vendor other than Anthropic"
    ),
    "bedrock-invoke/text-stream--should-handle-meta": (
        "Bedrock invoke of a vendor other than Anthropic"
    ),
    "tgi-native/text--tapes--6891e90a": "a fill-mask pipeline: it generates no text",
}
"""By the start of the name. The same list stands in the table that ``table.py`` prints."""


@dataclass(frozen=True)
class Case:
    """One exchange.

    Attributes:
        name: ``provider/case``, or ``own/wire/feature``.
        wire: whose decoder it is for; ``""`` where it is out of scope.
        kind: the feature, with ``-stream`` at its end where the answer came as a stream.
        framing: how the body is cut into payloads, after restoring.
        body: the answer's bytes.
        request: ``{method, url, headers, body}``, or None where it was not kept.
    """

    name: str
    wire: str
    kind: str
    framing: str
    body: bytes = field(repr=False)
    status: int = 200
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    request: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def provider(self) -> str:
        """Who answered."""
        return self.name.partition("/")[0]

    @property
    def feature(self) -> str:
        """What is shown, streamed or not."""
        return self.kind.removesuffix("-stream")

    @property
    def is_refusal(self) -> bool:
        """A body under an error status: no answer at all."""
        return self.status >= 400

    @property
    def is_stream(self) -> bool:
        """The answer came piece by piece."""
        return self.kind.endswith("-stream") or self.kind == "stream-error"

    @property
    def out_of_scope(self) -> str | None:
        """Say why nobody decodes it, or None."""
        for start, reason in OUT_OF_SCOPE.items():
            if self.name.startswith(start):
                return reason
        if "api/generate" in (self.request or {}).get("url", ""):
            return "Ollama /api/generate"
        return None


def frame(kind: str, payload: bytes, message_type: str = "event") -> bytes:
    """Return one AWS event-stream frame (Amazon's event stream specification, read 2026-11)."""
    type_header = ":exception-type" if message_type == "exception" else ":event-type"
    headers = b""
    for name, value in (
        (type_header, kind),
        (":content-type", "application/json"),
        (":message-type", message_type),
    ):
        headers += struct.pack("!B", len(name)) + name.encode()
        headers += struct.pack("!BH", 7, len(value)) + value.encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + payload
    return message + struct.pack("!I", binascii.crc32(message))


def framed(wire: str, lines: Iterable[bytes]) -> tuple[str, bytes]:
    """Return the framing and the body that payloads, one a line, had on the wire."""
    lines = [line for line in lines if line.strip()]
    if wire == CONVERSE:
        events = (next(iter(json.loads(line).items())) for line in lines)
        frames = (
            frame(
                name,
                json.dumps(payload).encode(),
                "exception" if name.endswith("Exception") else "event",
            )
            for name, payload in events
        )
        return "aws-eventstream", b"".join(frames)
    if wire == INVOKE:
        chunks = ({"bytes": binascii.b2a_base64(line, newline=False).decode()} for line in lines)
        return "aws-eventstream", b"".join(
            frame("chunk", json.dumps(chunk).encode()) for chunk in chunks
        )
    return "sse", b"".join(b"data: " + line + b"\n\n" for line in lines)


def _wire(provider: str, url: str) -> str:
    """Some speak chat and completions under one name."""
    wire = OTHER_WIRES.get(provider, CHAT)
    path = url.partition("?")[0]
    if wire == CHAT and path.endswith("/completions") and not path.endswith("/chat/completions"):
        return CHAT if "/prompts/" in path else COMPLETIONS
    return wire


def _recorded(folder: Path) -> Case:
    meta = json.loads((folder / "meta.json").read_text())
    head = json.loads((folder / "response.headers.json").read_text())
    asked = folder / "request.json"
    request = json.loads(asked.read_text()) if asked.exists() else None
    wire = _wire(meta["provider"], (request or {}).get("url") or "")
    framing, body = meta["framing"], (folder / "response.body").read_bytes()
    if framing == "payload-lines":
        framing, body = framed(wire, body.split(b"\n"))
    return Case(
        name=f"{meta['provider']}/{folder.name}",
        wire=wire,
        kind=meta["kind"],
        framing=framing,
        body=body,
        status=head["status"],
        headers=tuple((name, value) for name, value in head["headers"]),
        request=request,
    )


@functools.cache
def recorded() -> tuple[Case, ...]:
    """Return every recorded exchange, or none where they are not beside the checkout."""
    return tuple(_recorded(meta.parent) for meta in sorted(ROOT.glob("*/*/meta.json")))


FRAMINGS = {"sse": "sse", "json": "json", "ndjson": "ndjson", "array": "json-array"}


@functools.cache
def own() -> tuple[Case, ...]:
    """Return the bodies written by hand: ``own/WIRE/KIND[.NOTE].FRAMING``.

    ``lines`` holds one payload a line, where the framing is binary.
    """
    cases = []
    for file in sorted(OWN.glob("*/*.*")):
        wire, kind, suffix = file.parent.name, file.name.split(".")[0], file.suffix[1:]
        body = file.read_bytes()
        if suffix == "lines":
            framing, body = framed(wire, body.split(b"\n"))
        else:
            framing = FRAMINGS[suffix]
        status = int(file.name.split(".")[1]) if kind == "error" else 200
        name = f"own/{wire}/{file.name}"
        cases.append(Case(name, wire, kind, framing, body, status))
    return tuple(cases)


def every() -> tuple[Case, ...]:
    """Return all there is, out of scope too."""
    return (*own(), *recorded())


def answers() -> list[Case]:
    """Return what a decoder has to read: answers under a good status."""
    return [case for case in every() if not case.out_of_scope and not case.is_refusal]


def refusals() -> list[Case]:
    """Return the error bodies of wires in scope."""
    return [case for case in every() if not case.out_of_scope and case.is_refusal]


def decoder(case: Case) -> AnswerDecoder:
    """Return a new decoder; names that it makes up are the same in every run.

    Raises:
        ImportError: the wire has none yet.
    """
    module, _, name = DECODERS[case.wire].partition(":")
    numbers = itertools.count(1)
    kind = getattr(importlib.import_module(module), name)
    made: AnswerDecoder = kind(
        new_id=lambda: f"made-up-{next(numbers)}", **SETTINGS.get(case.provider, {})
    )
    return made
