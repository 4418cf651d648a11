"""Error answers of real servers, against a table made from the vendors' documents.

What an HTTP status means stands in design decision 10; the tables here say where a vendor's
words mean more than its status.
"""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime

from backends.errors import (
    BackendError,
    ContextLengthExceeded,
    EndpointRejected,
    RateLimited,
    RequestRejected,
    UpstreamFailed,
)
from backends.wire.failure import refusal
from tests.recordings.cases import Case

TOO_LONG = (
    "cohere-v2/error--real-error-scenarios",
    "deepseek/error--real-error-scenarios",
    "ollama-openai/error--real-error-scenarios",
    "perplexity/error--real-error-scenarios",
    "tgi-native/error--testtextgenerationclientvcr-test-generate-valida",
)
"""The prompt does not fit the window, in each vendor's own words."""

BAD_KEY = ("xai-responses/error--error-handling",)
"""A bad key that is not a 401: nothing is wrong with the caller's request."""


def expected(case: Case) -> type[BackendError]:
    """Return the class that this refusal is."""
    if case.name.startswith(TOO_LONG) or ".context." in case.name:
        return ContextLengthExceeded
    if case.name.startswith(BAD_KEY):
        return EndpointRejected
    if case.status == 429:
        return RateLimited
    if case.status in (400, 413, 422):
        return RequestRejected
    if case.status in (408, 409, 424, 425) or case.status >= 500:
        return UpstreamFailed
    return EndpointRejected


def message(body: bytes) -> str:
    """Return the vendor's sentence, wherever its documents put it."""
    try:
        document = json.loads(body)
    except ValueError:
        return body.decode().strip()
    inner = document.get("error", document)
    if isinstance(inner, str):
        return inner
    if "detail" in inner:
        said: str = inner["detail"][0]["msg"]
        return said
    found: str = inner["message"]
    return found


def named(case: Case, name: str) -> str | None:
    """Return a string of the error object; None where there is no object or no such string."""
    try:
        document = json.loads(case.body)
    except ValueError:
        return None
    inner = document.get("error") if isinstance(document, dict) else None
    value = inner.get(name) if isinstance(inner, dict) else None
    return value if isinstance(value, str) else None


def delay_s(case: Case) -> float | None:
    """Return how long to wait, in seconds, from the header or from Google's RetryInfo."""
    headers = {name.lower(): value for name, value in case.headers}
    if "retry-after" in headers:
        return float(headers["retry-after"])
    if headers.get("x-ratelimit-remaining") == "0":  # OpenRouter: when it begins again, in ms
        return (
            int(headers["x-ratelimit-reset"]) / 1000
            - parsedate_to_datetime(headers["date"]).timestamp()
        )
    found = re.search(rb'"retryDelay": *"([0-9.]+)s"', case.body)
    return float(found[1]) if found else None


def mistakes(case: Case) -> list[str]:
    """Return everything about the error we make of it that is not as it should be."""
    headers = {name.lower(): value for name, value in case.headers}
    made = refusal(case.status, "Phrase", headers, case.body)
    found = []
    if type(made) is not expected(case):
        found.append(f"is {type(made).__name__}, expected {expected(case).__name__}")
    if message(case.body) not in made.message:
        found.append(f"says {made.message!r}, expected {message(case.body)!r}")
    if made.upstream_status != case.status:
        found.append(f"keeps status {made.upstream_status}")
    if made.param != named(case, "param"):
        found.append(f"names the field {made.param!r}, expected {named(case, 'param')!r}")
    if (word := named(case, "status")) and made.upstream_code != word:  # Google's
        found.append(f"has the code {made.upstream_code!r}, expected {word!r}")
    if made.retry_after_s != delay_s(case):
        found.append(f"waits {made.retry_after_s}, expected {delay_s(case)}")
    return found
