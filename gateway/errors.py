"""Every error a client can see, and the one place that words its status and body.

::

    GatewayError
    |- Unauthorized        401: no key, or one that does not work
    |- UnknownModel        400: no such public name
    |- ModelExpired        400: withdrawn since a day that configuration names
    |- NoRoute             400: the model exists, but no endpoint can honor the request
    |- BodyTooLarge        413
    |- BodyTooSlow         408
    |- Overloaded          503: this worker is full, too busy or draining
    |- NotOffered          404: a route that this gateway does not have
    `- AllFailed           the last endpoint's error, with those before it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, ClassVar

from backends.errors import (
    BackendError,
    ContextLengthExceeded,
    EndpointRejected,
    RequestRejected,
    UpstreamFailed,
)
from backends.wire.checks import InvalidRequest, closest
from policies.feasible import NEVER_DROPPED
from policies.ledger.base import LedgerError, LedgerUnavailable, LimitExceeded, PaymentRequired
from policies.types import Rejection

_KINDS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "invalid_request"),
    401: ("authentication_error", "authentication"),
    402: ("insufficient_quota", "payment_required"),
    403: ("permission_error", "permission_denied"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "invalid_request"),
    408: ("timeout_error", "timeout"),
    413: ("invalid_request_error", "payload_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    502: ("upstream_error", "provider_unavailable"),
    503: ("overloaded_error", "provider_overloaded"),
    504: ("timeout_error", "timeout"),
}
_CALLER = ("invalid_request_error", "invalid_request")
_SERVER = ("server_error", "server")


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as a client gets it: in a body of its own or inside a stream."""

    status: int
    message: str
    param: str | None = None
    error_type: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """OpenRouter's name of the kind, for ``metadata.error_type``, logs and metrics."""
        return self.error_type or self._names[1]

    def body(self) -> dict[str, Any]:
        """Return the ``error`` object."""
        return {
            "code": self.status,
            "message": self.message,
            "type": self._names[0],
            "param": self.param,
            "metadata": {"error_type": self.kind, **self.metadata},
        }

    @property
    def _names(self) -> tuple[str, str]:
        return _KINDS.get(self.status, _CALLER if self.status < 500 else _SERVER)


class GatewayError(Exception):
    """An error of the gateway itself that a client should see."""

    def __init__(self, reply: ErrorReply) -> None:
        """Carry what the client gets."""
        super().__init__(reply.message)
        self.reply = reply


class Unauthorized(GatewayError):
    """No key, or one that does not work. The message never holds the key."""

    def __init__(self, message: str) -> None:
        """Say what is wrong with the Authorization header."""
        super().__init__(ErrorReply(401, message, headers={"WWW-Authenticate": "Bearer"}))


class UnknownModel(GatewayError):
    """No model has that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        """Suggest the nearest name."""
        message = f"no model {name!r}{closest(name, known)}; GET /v1/models lists the names"
        super().__init__(ErrorReply(400, message, "model", "model_not_found"))


class ModelExpired(GatewayError):
    """The model was served until a day that has passed."""

    def __init__(self, name: str, last_day: str, replacement: str | None) -> None:
        """Name the replacement, if there is one."""
        hint = f"use {replacement!r}" if replacement else "GET /v1/models lists what is served"
        message = f"the model {name!r} was served until {last_day}; {hint}"
        super().__init__(ErrorReply(400, message, "model", "model_deprecated"))


class NoRoute(GatewayError):
    """No endpoint of the asked models can honor the request as it is."""

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        """Name the fields and the endpoints."""
        reasons = "; ".join(f"{entry.endpoint}: {entry.detail}" for entry in rejections)
        fields = sorted({name for entry in rejections for name in entry.fields})
        lead = (
            f"no endpoint honors {', '.join(repr(name) for name in fields)}"
            if fields
            else ("no endpoint can serve this request")
        )
        hint = ""
        if any(entry.reason == "fields" for entry in rejections):
            hint = "; leave the field out"
            if NEVER_DROPPED.isdisjoint(fields):
                hint += ", or send provider.require_parameters=false to drop it"
        metadata = {
            "rejections": [
                {"endpoint": entry.endpoint, "reason": entry.reason, "detail": entry.detail}
                for entry in rejections
            ]
        }
        long = any(entry.reason == "context_length" for entry in rejections)
        super().__init__(
            ErrorReply(
                400,
                f"{lead} ({reasons}){hint}",
                fields[0] if fields else None,
                ContextLengthExceeded.error_type if long else None,
                metadata,
            )
        )


class BodyTooLarge(GatewayError):
    """The body is over the limit."""

    def __init__(self, limit_bytes: int) -> None:
        """Name the limit."""
        message = f"the body is over the limit of {limit_bytes} bytes; send a shorter one"
        super().__init__(ErrorReply(413, message))


class BodyTooSlow(GatewayError):
    """The body did not arrive in time."""

    status: ClassVar[int] = 408

    def __init__(self, limit_s: float) -> None:
        """Name the limit."""
        message = f"the body did not arrive within {limit_s:g} s; send it without pauses"
        super().__init__(ErrorReply(self.status, message))


class Overloaded(GatewayError):
    """This worker takes no more now."""

    status: ClassVar[int] = 503

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        """Say why; always retryable, after some whole seconds."""
        wait = str(max(1, ceil(retry_after_s)))
        super().__init__(ErrorReply(self.status, message, headers={"Retry-After": wait}))


class NotOffered(GatewayError):
    """A route that does not exist here."""

    def __init__(self, message: str) -> None:
        """Say what exists instead."""
        super().__init__(ErrorReply(404, message))


class AllFailed(GatewayError):
    """Every candidate failed; the last real error is passed on."""

    def __init__(self, failures: Sequence[tuple[str, BackendError]]) -> None:
        """Take the failures in order, each with its provider."""
        provider, last = failures[-1]
        previous = [
            {"provider_name": name, "code": reply.status, "message": reply.message}
            for name, error in failures[:-1]
            for reply in (backend_reply(error, name),)
        ]
        reply = backend_reply(last, provider)
        metadata = {**reply.metadata, **({"previous_errors": previous} if previous else {})}
        super().__init__(
            ErrorReply(
                reply.status, reply.message, reply.param, reply.error_type, metadata, reply.headers
            )
        )


def shown_status(error: BackendError) -> int:
    """Return the status a client sees for an upstream's failure."""
    if isinstance(error, UpstreamFailed) and error.upstream_status in (503, 529):
        return 503
    return error.status


def backend_reply(error: BackendError, provider: str) -> ErrorReply:
    """Word an upstream's failure, without what may be a credential in its words."""
    error.redact()
    status = shown_status(error)
    metadata: dict[str, Any] = {"provider_name": provider}
    if error.upstream_status is not None:
        metadata["upstream_status"] = error.upstream_status
    if error.upstream_code is not None:
        metadata["provider_code"] = error.upstream_code
    wait = error.retry_after_s
    headers = {"Retry-After": str(ceil(wait))} if wait is not None and status in (429, 503) else {}
    error_type = "provider_overloaded" if status == 503 else error.error_type
    words = error.message
    if isinstance(error, EndpointRejected) and error.credential_refused:
        # Nothing that a caller, who has another key and another account, could mend.
        told = "" if error.upstream_status is None else f" ({error.upstream_status})"
        words = f"the endpoint refuses this gateway's own credential{told}: {words}"
    # Another's refusal names no field that a caller should change.
    param = error.param if isinstance(error, RequestRejected) else None
    message = f"{provider}: {words}"
    return ErrorReply(status, message, param, error_type, metadata, headers)


def ledger_reply(error: LedgerError) -> ErrorReply:
    """Word a refusal of the ledger."""
    if isinstance(error, PaymentRequired):
        what = "credits" if error.source == "credits" else "the key's spending limit"
        message = (
            f"{what} too low: this request may cost up to {_usd(error.required_nanodollars)} USD, "
            f"{_usd(max(error.available_nanodollars, 0))} USD is left, short by "
            f"{_usd(error.shortfall_nanodollars)} USD; lower max_tokens or add credit"
        )
        source = "tollway_credits" if error.source == "credits" else "tollway_key_limit"
        metadata = {
            "limit_source": source,
            "required_nanodollars": error.required_nanodollars,
            "available_nanodollars": error.available_nanodollars,
            "shortfall_nanodollars": error.shortfall_nanodollars,
        }
        return ErrorReply(402, message, metadata=metadata)
    if isinstance(error, LimitExceeded):
        wait = max(1, ceil(error.retry_after_s))
        message = f"the limit {error.name!r} is used up; try again in {wait} s"
        return ErrorReply(
            429, message, metadata={"limit": error.name}, headers={"Retry-After": str(wait)}
        )
    if isinstance(error, LedgerUnavailable):
        message = "the ledger cannot be reached, so nothing can be charged; try again shortly"
        return ErrorReply(
            503, message, error_type="ledger_unavailable", headers={"Retry-After": "2"}
        )
    return ErrorReply(500, "the ledger refused the request; see the server's log")


def reply_for(error: Exception) -> ErrorReply | None:
    """Return the reply for any error a client may see; None for a fault of our own."""
    if isinstance(error, GatewayError):
        return error.reply
    if isinstance(error, InvalidRequest):
        return ErrorReply(400, error.message, error.param, metadata={"code": error.code})
    if isinstance(error, LedgerError):
        return ledger_reply(error)
    if isinstance(error, BackendError):
        return backend_reply(error, "upstream")
    return None


def internal() -> ErrorReply:
    """Word a fault of our own; the log has the rest."""
    return ErrorReply(500, "an internal error; the request id finds it in the server's log")


def _usd(nanodollars: int) -> str:
    return f"{nanodollars // 10**9}.{nanodollars % 10**9:09d}"
