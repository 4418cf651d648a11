"""Errors of every shape become the right error, with the vendor's words and the wait it asks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import (
    BackendError,
    ContentFiltered,
    ContextLengthExceeded,
    EndpointRejected,
    RateLimited,
    RequestRejected,
    UpstreamFailed,
)
from backends.wire.failure import refusal, stream_error

DATE = "Mon, 23 Nov 2026 12:00:00 GMT"


def refused(status: int, document: Any, **headers: str) -> BackendError:
    """Return what an answer stands for; underscores in names of headers are dashes."""
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(status, "Phrase", named, body)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"error": {"message": "no", "type": "t", "param": None, "code": None}}, "no"),
        ({"type": "error", "error": {"type": "t", "message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"error": ["no", "never"]}, "no"),
        ({"code": "kind", "error": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"Message": "no"}, "no"),
        ({"error": "Unauthorized", "message": "no"}, "no"),
        ({"error_code": "X", "message": "no"}, "no"),
        ({"object": "error", "message": "no", "code": 400}, "no"),
        ({"detail": [{"loc": ["body"], "msg": "no"}]}, "no"),
        ({"detail": "no"}, "no"),
        ({"object": "error", "message": {"detail": [{"loc": ["body"], "msg": "no"}]}}, "no"),
        ({"error": {"message": {"error": {"message": "no"}}}}, "no"),
        ({"detail": {"error": "no"}}, "no"),
        ({"detail": {"error": {"message": "no"}}}, "no"),
        ({"tpe": "invalid", "errors": [{"description": "no", "extras": {}}]}, "no"),
        ({"fault": {"faultstring": "no", "detail": {"errorcode": "x"}}}, "no"),
        ({"title": "Bad Request", "detail": "no"}, "no"),
        ({"error": "invalid_client", "error_description": "no"}, "no"),
        ({"error": "no, in a sentence", "detail": "see elsewhere"}, "no, in a sentence"),
        ({"error": "Bad Request", "detail": "no"}, "no"),
        ({"error": "Bad Request", "message": "no"}, "no"),
        ({"error": {"message": "P", "metadata": {"raw": {"error": {"message": "no"}}}}}, "P: no"),
        ({"message": '{"inner_error": {"what": "no"}}'}, '{"inner_error": {"what": "no"}}'),
        ({"success": False, "errors": [{"code": 7, "message": "no"}]}, "no"),
        ([{"error": {"code": 400, "message": "no"}}], "no"),
        ("no", "no"),
        (b"no, in plain words", "no, in plain words"),
        ({"error": {"message": '{"error": {"message": "no"}}'}}, "no"),
        ({"error": {"message": "Provider", "metadata": {"raw": '{"error":"no"}'}}}, "Provider: no"),
        ({"error": {"message": "Provider", "metadata": {"raw": "no"}}}, "Provider: no"),
        (b"<html><body>Bad Gateway</body></html>", "the upstream answered 400 Phrase"),
        ({"error": {}}, "the upstream answered 400 Phrase"),
        ({"error": {"message": None, "details": "a"}}, "the upstream answered 400 Phrase"),
        (b"", "the upstream answered 400 Phrase"),
    ],
)
def test_the_vendors_words_are_found(document: Any, message: str) -> None:
    """Never a raw document, and never nothing."""
    assert refused(400, document).message == message


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (400, {"error": {"message": "no"}}, RequestRejected),
        (400, {"code": "invalid-argument", "error": "Incorrect API key given"}, EndpointRejected),
        (400, {"error": {"message": "Invalid API Key", "param": "api_key"}}, EndpointRejected),
        (400, {"error": {"message": "Invalid API Key", "type": "server_error"}}, EndpointRejected),
        (400, {"error": {"message": "API key not valid. Pass one."}}, EndpointRejected),
        (
            400,
            {"error": {"message": "no", "details": [{"reason": "API_KEY_INVALID"}]}},
            EndpointRejected,
        ),
        (400, {"error": {"message": "Your credit balance is too low"}}, EndpointRejected),
        (400, {"error": {"message": "m", "code": "model_not_found"}}, RequestRejected),
        (400, {"error": {"message": "Invalid API key", "param": "stop"}}, RequestRejected),
        (400, {"error": {"message": "Invalid API key", "type": "tool_error"}}, RequestRejected),
        (
            400,
            {"error": {"message": "Invalid API key", "type": "invalid_request_error"}},
            EndpointRejected,
        ),
        (400, {"error": {"message": "m", "code": "content_filter"}}, ContentFiltered),
        (
            400,
            {"error": {"message": "m", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            ContentFiltered,
        ),
        (400, {"error": {"message": "prompt is too long: 9 tokens > 8"}}, ContextLengthExceeded),
        (400, {"message": "Input is too long for requested model."}, ContextLengthExceeded),
        (
            400,
            {"error": {"message": "The input token count (9) exceeds the maximum"}},
            ContextLengthExceeded,
        ),
        (400, {"message": "too many tokens: size limit exceeded"}, ContextLengthExceeded),
        (400, {"error": {"message": "m", "code": "data_inspection_failed"}}, ContentFiltered),
        (400, {"code": "DataInspectionFailed", "message": "m"}, ContentFiltered),
        (400, {"error": "rate_limit_exceeded", "error_description": "slow"}, RateLimited),
        (400, {"error": "bad_request", "message": "m", "code": "content_filter"}, ContentFiltered),
        (400, {"error": "max_tokens is too large here", "message": "m"}, RequestRejected),
        (400, {"error": "prompt is too long: 9 > 8", "detail": "docs"}, ContextLengthExceeded),
        (
            400,
            {"error": {"message": "m", "type": "exceed_context_size_error"}},
            ContextLengthExceeded,
        ),
        (
            400,
            {"error": "This model's maximum prompt length is 8 but the request contains 9"},
            ContextLengthExceeded,
        ),
        (
            422,
            {
                "error": "`inputs` tokens + `max_new_tokens` must be <= 8",
                "error_type": "validation",
            },
            ContextLengthExceeded,
        ),
        (413, {"error": {"type": "request_too_large", "message": "m"}}, RequestRejected),
        (413, {"error": {"message": "m", "code": "rate_limit_exceeded"}}, RateLimited),
        (499, {"error": {"code": 499, "message": "cancelled"}}, UpstreamFailed),
        (529, {"error": {"type": "overloaded_error", "message": "m"}}, UpstreamFailed),
    ],
)
def test_a_body_may_say_more_than_the_status(
    status: int, document: Any, kind: type[BackendError]
) -> None:
    """A bad key is ours to mend, a filter ends the request, a longer window may do."""
    error = refused(status, document)
    assert type(error) is kind
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"ErrorCode": "INTERNAL_FAILURE", "Message": "from primary"}, UpstreamFailed),
        ({"OriginalStatusCode": 500, "OriginalMessage": "m", "Message": "n"}, UpstreamFailed),
        ({"OriginalStatusCode": 429, "Message": "n"}, RateLimited),
        ({"OriginalStatusCode": 400, "Message": "n"}, RequestRejected),
        ({"originalStatusCode": 424, "message": "n", "resourceName": "r"}, UpstreamFailed),
        ({"originalStatusCode": "500", "message": "n"}, UpstreamFailed),
        ({"error": "Request failed during generation", "error_type": "generation"}, UpstreamFailed),
    ],
)
def test_a_model_that_failed_behind_a_front_is_asked_again(
    document: Any, kind: type[BackendError]
) -> None:
    """SageMaker's, Bedrock's and TGI's 424; the model's own status counts where it is told."""
    assert type(refused(424, document)) is kind


def test_amazon_names_the_kind_in_a_header_or_in_the_body() -> None:
    """Up to the colon, or after the name's home."""
    told = {"__type": "com.amazon.coral.availability#ThrottlingException", "message": "no"}
    assert type(refused(400, told)) is RateLimited
    error = refused(400, {"message": "no"}, x_amzn_errortype="ThrottlingException:http://a/")
    assert type(error) is RateLimited
    assert error.upstream_code == "ThrottlingException"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry_after": "3"}, 3),
        ({"retry_after": "20s"}, 20),
        ({"retry_after": "1m20s"}, 80),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "12ms"}, 0.012),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "6m0s"}, 360),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "1h2m3.5s"}, 3723.5),
        ({"x_ratelimit_remaining_requests": "1", "x_ratelimit_reset_requests": "6m0s"}, None),
        ({"x_ratelimit_remaining": "0", "x_ratelimit_reset": "1795435230000"}, 30),
        ({"x_ratelimit_remaining": "0", "x_ratelimit_reset": "1795435230"}, 30),
        ({"x_ratelimit_remaining": "0", "x_ratelimit_reset": "60"}, 60),
        ({"x_ratelimit_remaining": "0", "x_ratelimit_reset": "soon"}, None),
        ({"x_ratelimit_remaining": "0", "x_ratelimit_reset": "nan"}, None),
        ({"x_ratelimit_remaining": "0"}, None),
        ({"x_ratelimit_reset": "7"}, 7),
        ({"x_ratelimit_reset_after": "1.5"}, 1.5),
        ({"x_ratelimit_reset_requests": "6m0s", "x_ratelimit_reset_tokens": "20ms"}, 0.02),
        ({"ratelimit_reset": "9"}, 9),
        ({"x_rate_limit_reset": "9"}, 9),
        ({"ratelimit_reset": "9", "ratelimit_remaining": "4"}, None),
        ({"x_ratelimit_reset_after": "9", "x_ratelimit_remaining": "4"}, None),
        ({"x_ratelimit_reset_after": "9", "x_ratelimit_remaining": "0"}, 9),
        (
            {
                "x_ratelimit_remaining_tokens": "0",
                "x_ratelimit_reset_tokens": "5s",
                "x_ratelimit_reset_requests": "1s",
            },
            5,
        ),
        ({"x_ratelimit_reset": "9" * 400 + "s"}, None),
        (
            {
                "anthropic_ratelimit_input_tokens_remaining": "0",
                "anthropic_ratelimit_input_tokens_reset": "2026-11-23T12:00:45Z",
                "anthropic_ratelimit_requests_remaining": "0",
                "anthropic_ratelimit_requests_reset": "2026-11-23T12:00:05Z",
                "anthropic_ratelimit_output_tokens_remaining": "9",
                "anthropic_ratelimit_output_tokens_reset": "2026-11-23T13:00:00Z",
            },
            45,
        ),
    ],
)
def test_the_wait_is_read_in_every_form(headers: dict[str, str], wait: float | None) -> None:
    """By the upstream's own clock; of several limits the last that is used up."""
    found = refused(429, {}, date=DATE, **headers).retry_after_s
    assert found == (None if wait is None else pytest.approx(wait))


def test_a_limit_that_refused_nothing_says_nothing() -> None:
    """A server that failed while no tokens were left did not fail for that."""
    headers = {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "9"}
    document = {"error": {"message": "Please try again in 20s."}}
    assert refused(500, document, x_ratelimit_reset="7", **headers).retry_after_s is None


def test_the_wait_may_stand_in_the_body() -> None:
    """Google's RetryInfo, and the headers that OpenRouter repeats."""
    google = {"error": {"message": "m", "details": [{"retryDelay": "34.5s"}]}}
    assert refused(429, google).retry_after_s == 34.5
    again = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795435230000"}
    router = {"error": {"message": "m", "metadata": {"headers": again}}}
    assert refused(429, router, date=DATE).retry_after_s == pytest.approx(30)


@pytest.mark.parametrize(
    ("words", "wait"),
    [
        ("Rate limit reached for m: Limit 3, Used 3. Please try again in 1.5s. Visit us.", 1.5),
        ("Please try again in 20ms.", 0.02),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 1m12.345s.", 72.345),
        ("Please retry after 20 seconds.", 20),
        ("Please wait 2 minutes and 9 models", 120),
        ("Wait at least 500 milliseconds, please", 0.5),
        ("Retry your request after 1 hour 5 mins", 3900),
        ("Please try again later", None),
        ("Please try again in 5 months", None),
        ("retry 3 times", None),
        (f"Please try again in {'9' * 400}s", None),
    ],
)
def test_the_words_say_it_where_nothing_else_does(words: str, wait: float | None) -> None:
    """In an answer or a stream; a header comes first."""
    document = {"error": {"message": words, "type": "tokens", "code": "rate_limit_exceeded"}}
    expected = None if wait is None else pytest.approx(wait)
    assert refused(429, document).retry_after_s == expected
    assert stream_error(document).retry_after_s == expected
    assert refused(429, document, retry_after="3").retry_after_s == 3
    assert refused(429, document, x_ratelimit_reset="4").retry_after_s == 4


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, UpstreamFailed),
        ({"error": "m", "error_type": "validation"}, RequestRejected),
        ({"error": "m", "error_type": "overloaded"}, RateLimited),
        ({"error": {"message": "m", "code": "x", "status_code": 400}}, RequestRejected),
        ({"error": {"message": "m", "code": "content_filter", "status": 400}}, ContentFiltered),
        ({"error": {"message": "m", "code": 499}}, UpstreamFailed),
        ({"object": "error", "message": "m", "code": 400}, RequestRejected),
        ({"type": "error", "error": {"code": "too_many_requests", "message": "m"}}, RateLimited),
        ({"error": {"code": "RateLimitReached", "message": "m"}}, RateLimited),
    ],
)
def test_an_error_in_a_stream_is_told_by_its_words(document: Any, kind: type[BackendError]) -> None:
    """There is no status there but what it brings."""
    error = stream_error(document)
    assert type(error) is kind
    assert error.message == "m"


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"error": {"message": "m", "code": "429"}}, 429, None),
        ({"error": {"message": "m", "code": 429}}, 429, None),
        ({"error": "m", "code": "429"}, 429, None),
        ({"error": {"message": "m", "status": "503"}}, 503, None),
        ({"error": {"message": "m", "type": "overloaded_error"}}, 529, None),
        ({"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}, 429,
         "RESOURCE_EXHAUSTED"),
        ({"error": {"message": "m", "code": "7009"}}, None, "7009"),
        ({"error": {"message": "m", "code": True}}, None, "True"),
        ({"error": {"message": "m", "type": "who_knows"}}, None, None),
        ({"error": "m"}, None, None),
    ],
)  # fmt: skip
def test_an_error_in_a_stream_has_the_status_that_it_names(
    document: Any, status: int | None, code: str | None
) -> None:
    """As a number, in digits or by its type; none is made up."""
    error = stream_error(document)
    assert (error.upstream_status, error.upstream_code) == (status, code)
    assert type(error) is (RateLimited if status == 429 else UpstreamFailed)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("This model's maximum context length is 8", ContextLengthExceeded),
        ("Incorrect API key provided", EndpointRejected),
        ("no", UpstreamFailed),
    ],
)
def test_without_a_status_the_words_tell(words: str, kind: type[BackendError]) -> None:
    """As they do where the status is only that of a wrong request."""
    assert type(stream_error({"error": {"message": words}})) is kind


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"error": {"code": 400, "message": "m", "status": "ABORTED"}}, "ABORTED"),
        ([{"error": {"code": 403, "message": "m", "status": "NOT_FOUND"}}], "NOT_FOUND"),
        ({"error": {"code": "deep", "message": "m", "status": "FAILED"}}, "deep"),
        ({"error": {"code": 400, "message": "m", "status": "failed"}}, "400"),
    ],
)  # fmt: skip
def test_googles_word_says_more_than_its_number(document: Any, code: str) -> None:
    """The number is the status once more."""
    assert refused(400, document).upstream_code == code


@pytest.mark.parametrize(
    ("param", "found"),
    [
        ("temperature", "temperature"),
        (None, None),
        ("", None),
        (["a"], None),
        ("x" * 999, "x" * 200),
    ],
)
def test_the_field_that_is_wrong_is_kept(param: Any, found: str | None) -> None:
    """Where an OpenAI-like error names one, whole or in a stream."""
    document = {"error": {"message": "m", "param": param}}
    assert refused(400, document).param == found
    assert stream_error(document).param == found


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["error", "errors", "message", "detail", "code", "metadata", "raw", "details",
                 "innererror", "type", "headers", "retryDelay", "status", "param"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)  # fmt: skip


@given(_values, st.sampled_from([400, 401, 429, 500]))
def test_no_body_is_too_strange(document: Any, status: int) -> None:
    """Always an error of ours with bounded words."""
    error = refused(status, document, x_ratelimit_remaining="0", x_ratelimit_reset="1s")
    assert 0 < len(error.message) <= 2000
    assert error.upstream_status == status
    assert stream_error(document).message
