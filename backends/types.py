"""The shared words: what is asked for, and what a stream is made of.

This module imports nothing of ours and knows nothing of HTTP, vendors, money or routing.

Messages, tools and parameters are kept in the shape of OpenAI's Chat Completions, with
OpenRouter's additions, as plain JSON values: it is the one shape that every client dialect
and every upstream wire can be translated to and from. ``wire/openai_request.py`` validates
them once, at the edge.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "error"]
"""The normalized reasons (OpenRouter's five). The upstream's own word travels beside it."""

OutputField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]

Operation: TypeAlias = Literal["chat", "completions", "embeddings"]
"""What is asked for: an answer to messages, the continuation of a prompt, or vectors."""


def utf8_bytes(text: str) -> int:
    """Return how many bytes a text has on the wire."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class ProviderPreferences(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller says about endpoints in the ``provider`` object."""

    require_parameters: bool = True
    """False: a field that an endpoint lacks is dropped there, and the answer says so."""

    options: dict[str, dict[str, Any]] = {}
    """Vendor-specific fields by provider slug, sent to that provider only."""


class Native(msgspec.Struct, frozen=True):
    """The client's own document, for an upstream of the same wire: nothing is translated there."""

    wire: str
    """``messages``, ``responses``, ``completions``, ``embeddings``; chat needs none."""

    body: dict[str, Any]


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as the planner, the ledger and every backend see it.

    It has no ``stream`` flag: how the caller wants the answer shown is not the upstream's
    business. Per-attempt values (``output_bound``) are set with ``msgspec.structs.replace``.
    """

    models: tuple[str, ...]
    """Public model names in the caller's order; at least one."""

    messages: tuple[dict[str, Any], ...]

    params: dict[str, Any]
    """Known fields given with a value other than null, except those listed on their own."""

    required: frozenset[str]
    """Fields and part types an endpoint must honor: those given with a non-default value."""

    prompt_bytes: int
    """A bound: everything in the body that can become prompt tokens (no image data)."""

    content_bytes: int = 0
    """UTF-8 bytes of the texts and calls in the messages, for a count of our own."""

    tools_bytes: int = 0
    """The same of the tools, as JSON: apart, as an endpoint that lacks them may get none."""

    images: int = 0
    max_tokens: int | None = None
    """The caller's own output limit in tokens."""

    output_field: OutputField = "max_tokens"
    """The name under which the caller gave, and the upstream gets, the output limit."""

    output_bound: int | None = None
    """The limit to send upstream for this attempt; None where the endpoint caps itself."""

    n: int = 1
    """How many answers there will be, over all prompts."""

    stop: tuple[str, ...] = ()
    operation: Operation = "chat"
    inputs: tuple[Any, ...] = ()
    """Of ``completions`` the prompts, of ``embeddings`` what gets a vector each. ``messages``
    says the same of a single text prompt, for upstreams that know only messages."""

    native: Native | None = None
    provider: ProviderPreferences = ProviderPreferences()
    request_id: str = ""
    account: str = ""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts that an upstream reported. A kind it did not report is None, never 0.

    ``prompt_tokens`` includes cached and cache-write tokens; ``completion_tokens`` includes
    reasoning tokens (OpenAI's convention).
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_picodollars: int | None = None
    """What the upstream says that it charges us; for the house's books, not for the caller."""


class HalfUsage(msgspec.Struct, frozen=True, gc=False):
    """A report of the prompt alone, or of the answer alone: the other was counted by nobody.

    The parts are as in ``Usage``.
    """

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class ResponseStart(msgspec.Struct, frozen=True, gc=False):
    """The upstream has accepted the request. Always the first event, once."""

    upstream_id: str | None = None
    upstream_model: str | None = None


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """Visible text of one choice."""

    index: int
    text: str
    logprobs: Any = None


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """Reasoning of one choice, with the signed or encrypted parts a vendor wants back."""

    index: int
    text: str
    details: Any = None


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """A refusal in the model's words."""

    index: int
    text: str


class ImageDelta(msgspec.Struct, frozen=True, gc=False):
    """One whole image that the model made, as a URL (mostly ``data:``)."""

    index: int
    url: str


class VectorDelta(msgspec.Struct, frozen=True, gc=False):
    """The embedding of one input: numbers, or base64 of little-endian 32-bit floats."""

    index: int
    vector: list[float] | str


class AnnotationDelta(msgspec.Struct, frozen=True, gc=False):
    """Citations of one choice, in OpenAI's shape (``url_citation``) where they fit it."""

    index: int
    annotations: list[dict[str, Any]]


class MessageStart(msgspec.Struct, frozen=True, gc=False):
    """What one choice says from here on is a message of its own.

    Said of one that follows another, or that has a ``phase``: some models want it handed back.
    """

    index: int
    phase: str | None = None


class PartStart(msgspec.Struct, frozen=True, gc=False):
    """What one choice says from here on is another part of the same message.

    Citations are of a part: text that follows a cited one as another part is not cited by it.
    """

    index: int


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of one tool call. ``id`` and ``name`` come with the first piece only.

    Arguments of a ``custom`` tool of OpenAI's are any text: an empty piece says that it is whole,
    and is missing where it was cut.
    """

    index: int
    call_index: int
    id: str | None
    name: str | None
    arguments: str
    custom: bool = False


class UsageUpdate(msgspec.Struct, frozen=True, gc=False):
    """The wire's running count, true of everything before it in the stream."""

    prompt_tokens: int
    completion_tokens: int


class ChoiceEnd(msgspec.Struct, frozen=True, gc=False):
    """How one choice ended: the normalized reason and the upstream's own word."""

    index: int
    reason: FinishReason
    raw_reason: str


class Finish(msgspec.Struct, frozen=True):
    """The one clean end. Always the last event; a stream without it was cut."""

    choices: tuple[ChoiceEnd, ...]
    usage: Usage | HalfUsage | None
    dropped_events: int = 0
    """Upstream events that were not JSON and were left out."""

    extras: dict[str, Any] | None = None
    """What only this vendor says of an answer; shown under the provider's name."""


Content: TypeAlias = (
    TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | ImageDelta | VectorDelta
)
Delta: TypeAlias = Content | AnnotationDelta | MessageStart | PartStart
"""What an encoder of a client's dialect writes."""

StreamEvent: TypeAlias = ResponseStart | Delta | UsageUpdate | Finish
"""One ``ResponseStart`` first and one ``Finish`` last, or a ``BackendError`` is raised."""

CONTENT = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, ImageDelta, VectorDelta)
"""Event types that are content: the first one commits the answer to its endpoint."""

DELTAS = (*CONTENT, AnnotationDelta, MessageStart, PartStart)


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What an answer costs: to the caller, and (before the markup) at the upstream."""

    charge_nanodollars: int
    upstream_nanodollars: int = 0
    upstream_prompt_nanodollars: int = 0
    upstream_completion_nanodollars: int = 0


class AnswerHead(msgspec.Struct, frozen=True):
    """What every chunk and every whole answer to a client repeats."""

    id: str
    model: str
    """The public name of the model that answered."""

    provider: str
    created_s: int
    """Unix time."""
