"""What can go wrong at an upstream, and what that means for the attempt.

::

    BackendError                     something went wrong at one endpoint
    |- RequestRejected               400, 413, 422: the request is at fault; ends it
    |  |- Unsupported                the endpoint's wire cannot say it; moves on
    |  |- ContextLengthExceeded      moves on to an endpoint with no smaller window
    |  `- ContentFiltered            a policy refused the content; ends it
    |- EndpointRejected              401, 402, 403, 404 ...: opens the breaker, moves on
    |- RateLimited                   429: again here if the wait is short, else moves on
    |- UpstreamFailed                408, 409, 424, 425, 5xx: again here, moves on
    |- ConnectionFailed              refused, reset, TLS: again here, then moves on
    |- DeadlineExceeded              silence (first token, stall): never again here
    `- StreamBroken                  the answer did not end as an answer must
       |- StreamTruncated            no finish reason, or no clean end
       |- EmptyAnswer                a clean stop without any output
       `- ProtocolError              over a bound, or not the wire it claims to be

Design decision 10 fixes the reactions; ``classify`` is the only place that reads statuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from backends.redaction import cut, redacted

MAX_MESSAGE_CHARS: Final = 2000
MAX_CODE_CHARS: Final = 200
MAX_PARAM_CHARS: Final = 200

_WHOLE: Final = 4
"""As many times what is shown of a text is looked through for credentials before it is cut."""

MAX_WHOLE_CHARS: Final = MAX_MESSAGE_CHARS * _WHOLE

Phase: TypeAlias = Literal["connect", "first_token", "stall", "total"]

RETRYABLE_STATUSES = frozenset({408, 409, 424, 425, 499})
"""424 is what the fronts of SageMaker, Bedrock and TGI say of a model behind them that failed, 499
Google's word for an answer that its own side cancelled."""

REJECTED_STATUSES = frozenset({400, 413, 422})

_CONTEXT_WORDS = re.compile(
    r"context (length|window|size|limit)|(prompt|input|messages) (is |are )?too long"
    r"|too many tokens|(maximum|max) prompt length|longer than the maximum model length"
    r"|(prompt|input) exceeds (the )?max(imum)? length|exceed(s|ed) model token limit"
    r"|range of input length should be \[\d"
    r"|input (token count|length).{0,40}(exceed|only supports)"
    r"|`inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than",
    re.IGNORECASE,
)
_KEY_WORDS = re.compile(
    r"(?:(?:http|error|[\w.]{1,60}(?:error|exception)|code|4\d\d|bad request|unauthorized"
    r"|authentication(?: error| fail\w*)?|provider returned error|(?:request|model access) failed"
    r"|you passed|an?|the|your|this|provided)[\s:,.(\[-]{1,9}){0,5}"
    r"(?:(?:incorrect|invalid) api[ _-]?key(?![\w'\"`-])"
    r"|api[ _-]?key (?:is )?(?:not valid|invalid|expired)(?![\w'\"`-])"
    r"|credit balance is too low)",
    re.IGNORECASE,
)
"""How a sentence about a key or an account begins. Within a sentence the words may be the caller's:
a tool's name, a stop sequence."""

_KEY_KINDS = re.compile("key|auth|credential|credit|billing|balance|account|permission|access")
_PLAIN_KINDS = frozenset({
    "error", "apierror", "clienterror", "requesterror", "usererror", "upstreamerror", "invalid",
    "invalidrequest", "invalidrequesterror", "invalidargument", "clientspecifiedaninvalidargument",
    "badrequest", "badrequesterror", "failedprecondition", "validation", "validationerror",
    "validationexception", "unprocessableentity", "none", "null", "unknown", "servererror",
    "internalerror", "internalservererror",
})  # fmt: skip
"""Codes and types, as letters alone, that say no more than the status of a wrong request."""

_CREDENTIAL_STATUSES = frozenset({401, 402, 403})


class BackendError(Exception):
    """An attempt at one endpoint failed.

    Attributes:
        status: the HTTP status a client should see if this is the last word.
        error_type: OpenRouter's name of the kind, for ``error.metadata.error_type``.
        upstream_status: the status the upstream sent, or None if it sent none.
        upstream_code: the upstream's own error code, or None.
        retry_after_s: how long the upstream asked to wait, seconds, or None.
        param: the field of the request that the upstream named, or None.
        retry_here: another try at the same endpoint may help.
        move_on: another endpoint may do it.
        other_credential: another credential of the same endpoint may do it, at once.
    """

    status = 502
    error_type = "provider_unavailable"
    retry_here = False
    move_on = True
    other_credential = False

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int | None = None,
        upstream_code: str | None = None,
        retry_after_s: float | None = None,
        param: str | None = None,
    ) -> None:
        """Keep what the upstream said, cut to its bounds; ``message`` is shown to the client."""
        super().__init__()
        self.upstream_status = upstream_status
        self.retry_after_s = retry_after_s
        self._say(message, upstream_code, param)

    def redact(self, secrets: Iterable[str] = ()) -> None:
        """Take out of all its texts what may be a credential; see ``redacted``."""
        known = tuple(secrets)
        message, code, param = (text and redacted(text, known) for text in self._whole)
        self._say(message or "", code, param)

    def _say(self, message: str, code: str | None, param: str | None) -> None:
        texts = ((message, MAX_MESSAGE_CHARS), (code, MAX_CODE_CHARS), (param, MAX_PARAM_CHARS))
        # Half a key would not be known for one: it is looked for before the texts are cut.
        self._whole = [text and cut(text, most * _WHOLE) for text, most in texts]
        shown = [text and cut(text, most) for text, most in texts]
        self.message, self.upstream_code, self.param = shown[0] or "", shown[1], shown[2]
        self.args = (self.message,)


class RequestRejected(BackendError):
    """The upstream says that the request itself is wrong; no other endpoint is asked."""

    status = 400
    error_type = "invalid_request"
    move_on = False


class Unsupported(RequestRejected):
    """This endpoint's wire cannot say what is asked, and was not asked; another's may."""

    move_on = True


class ContextLengthExceeded(RequestRejected):
    """The prompt or the output limit does not fit the upstream's window."""

    error_type = "context_length_exceeded"
    move_on = True


class ContentFiltered(RequestRejected):
    """A content policy refused the request. Asking elsewhere would be a way around it."""

    error_type = "content_policy_violation"


class EndpointRejected(BackendError):
    """The upstream refuses our credential, plan, or address: nothing wrong with the request."""

    @property
    def credential_refused(self) -> bool:
        """Whether it is about our credential or what it may do, whatever the status."""
        told = _KIND_OF.get((self.upstream_code or "").lower()) is EndpointRejected
        told = told or self.upstream_status in _CREDENTIAL_STATUSES
        return told or _KEY_WORDS.match(self.message) is not None


class RateLimited(BackendError):
    """The upstream's own rate limit."""

    status = 429
    error_type = "rate_limit_exceeded"
    retry_here = True


class UpstreamFailed(BackendError):
    """The upstream answered that it failed."""

    retry_here = True


class ConnectionFailed(BackendError):
    """No connection, or it broke before the first byte of an answer."""

    retry_here = True


class DeadlineExceeded(BackendError):
    """The upstream stayed silent too long. Silence is never tried again at the same place."""

    status = 504
    error_type = "timeout"

    def __init__(self, message: str, *, phase: Phase) -> None:
        """``phase`` says which of the deadlines passed."""
        super().__init__(message)
        self.phase = phase


class StreamBroken(BackendError):
    """An accepted answer did not end as an answer must."""

    retry_here = True


class StreamTruncated(StreamBroken):
    """The stream ended without a finish reason or broke off."""


class EmptyAnswer(StreamBroken):
    """A clean ``stop`` with no output token, on a request without ``stop``."""


class ProtocolError(StreamBroken):
    """The upstream passed a bound or does not speak the wire it claims to speak."""

    retry_here = False


_CODES: Mapping[type[BackendError], str] = {
    ContextLengthExceeded: (
        "context_length_exceeded string_above_max_length exceed_context_size_error "
        "too_many_prompt_tokens too_many_tokens model_max_prompt_tokens_exceeded"
    ),
    ContentFiltered: (
        "content_policy_violation content_filter moderation_blocked responsibleaipolicyviolation "
        "data_inspection_failed datainspectionfailed"
    ),
    EndpointRejected: (
        "invalid_api_key api_key_invalid expiredtokenexception "
        "unrecognizedclientexception invalidsignatureexception accessdeniedexception"
    ),
    RateLimited: (
        "rate_limit_exceeded throttlingexception servicequotaexceededexception "
        "modelnotreadyexception too_many_requests ratelimitreached"
    ),
}
_KIND_OF: Mapping[str, type[BackendError]] = {
    code: kind for kind, codes in _CODES.items() for code in codes.split()
}


def is_telling(code: str) -> bool:
    """Say whether an upstream's code, of any letters' case, says more than its status."""
    return code.lower() in _KIND_OF


def classify(
    status: int | None,
    message: str,
    *,
    code: str | None = None,
    retry_after_s: float | None = None,
    param: str | None = None,
    named: str | None = None,
) -> BackendError:
    """Return the error that an upstream's HTTP status and error code stand for.

    Args:
        status: the upstream's HTTP status, 400 or above; None where it told none, as in streams.
        message: the upstream's words, shown to the client.
        code: the upstream's error code, if any.
        retry_after_s: the Retry-After it sent, in seconds.
        param: the field of the request that it names, if any.
        named: its own name of the kind of error beside the code, if any.
    """
    message = cut(message, MAX_WHOLE_CHARS)
    kind = _KIND_OF.get(code.lower()) if code else None
    if kind is None and (status is None or status in REJECTED_STATUSES):
        at_fault = any(map(_is_of_the_request, (param, code, named)))
        kind = _kind_of_words(message, at_fault=at_fault)
        kind = kind or (RequestRejected if status else UpstreamFailed)
    elif kind is None and status == 429:
        kind = RateLimited
    elif kind is None and (status in RETRYABLE_STATUSES or (status or 0) >= 500):
        kind = UpstreamFailed
    kind = kind or EndpointRejected
    return kind(
        message,
        upstream_status=status,
        upstream_code=code,
        retry_after_s=retry_after_s,
        param=param,
    )


def _is_of_the_request(name: str | None) -> bool:
    """Say whether a code or type tells what is wrong with a request, and so with no key of ours."""
    letters = "".join(char for char in (name or "").lower() if char.isalpha())
    return bool(letters) and letters not in _PLAIN_KINDS and not _KEY_KINDS.search(letters)


def _kind_of_words(message: str, *, at_fault: bool) -> type[BackendError] | None:
    """Many servers give no code, only a sentence: about the context's length, or about a key.

    Where the request is known to be at fault no words make it the endpoint's: that would rest it
    for every caller.
    """
    if _CONTEXT_WORDS.search(message):
        return ContextLengthExceeded
    return EndpointRejected if not at_fault and _KEY_WORDS.match(message) else None
