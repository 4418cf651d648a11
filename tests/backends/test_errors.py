"""The error tree and the one place that reads statuses."""

from __future__ import annotations

import inspect

import pytest

from backends import errors
from backends.errors import (
    MAX_CODE_CHARS,
    MAX_MESSAGE_CHARS,
    MAX_PARAM_CHARS,
    BackendError,
    ContentFiltered,
    ContextLengthExceeded,
    EndpointRejected,
    RateLimited,
    RequestRejected,
    UpstreamFailed,
    classify,
)
from backends.redaction import REDACTED


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_exactly_one_reaction(status: int) -> None:
    """No status falls through, and only these end a request."""
    error = classify(status, "words")
    assert error.move_on is (status not in {400, 413, 422})
    assert error.retry_here is (status in {408, 409, 424, 425, 429, 499} or status >= 500)
    expected = {400: RequestRejected, 413: RequestRejected, 422: RequestRejected, 429: RateLimited}
    other = UpstreamFailed if error.retry_here else EndpointRejected
    assert type(error) is expected.get(status, other)
    assert (error.message, error.upstream_status) == ("words", status)


@pytest.mark.parametrize("status", [400, 403, 413, 422, 429, 500])
def test_a_content_filter_ends_the_request_whatever_the_status(status: int) -> None:
    """Asking elsewhere would be a way around it."""
    error = classify(status, "no", code="content_filter")
    assert type(error) is ContentFiltered
    assert not error.move_on


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 8192 tokens",
        "exceeds the CONTEXT WINDOW",
        "prompt is too long: 210000 tokens",
        "prompt too long; exceeded max context length",
        "The decoder prompt (length 9) is longer than the maximum model length of 8",
        "Invalid request: Your request exceeded model token limit: 8192",
        "Prompt exceeds max length",
        "Range of input length should be [1, 30720]",
        "The total length of all messages is too long.",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "the input token count is 2000026 but model only supports up to 1000000",
    ],
)
def test_a_context_error_is_known_by_its_words(words: str) -> None:
    """It moves on to a larger window; only statuses that refuse the request are read so."""
    assert type(classify(400, words)) is ContextLengthExceeded
    assert type(classify(500, words)) is UpstreamFailed


def test_a_key_that_is_refused_with_400_is_no_fault_of_the_request() -> None:
    """Google's status for a wrong key is that of a wrong request; its reason tells them apart."""
    error = classify(400, "API key not valid.", code="API_KEY_INVALID")
    assert type(error) is EndpointRejected
    assert error.move_on


@pytest.mark.parametrize(
    "words",
    [
        "Incorrect API key provided: sk-x. You can find your key in the console.",
        "API key not valid. Please pass a valid API key.",
        "API key expired. Please renew the API key.",
        "Your API key is invalid",
        "The api_key is not valid",
        "Error: Invalid API key",
        "Authentication Fails (invalid api key)",
        "Error code: 400 - Incorrect API key provided",
        "litellm.BadRequestError: OpenAIException - Incorrect API key provided: sk-x",
        "Request failed: invalid api key",
        "You passed an invalid API key",
        "Provider returned error: Invalid API key",
        "Your credit balance is too low to access the API. Please go to Plans & Billing.",
    ],
)
@pytest.mark.parametrize(
    "code", [None, "400", "invalid-argument", "INVALID_ARGUMENT", "invalid_request_error",
             "authentication_error", "Client specified an invalid argument"],
)  # fmt: skip
def test_a_sentence_about_a_key_is_known_by_its_beginning(words: str, code: str | None) -> None:
    """Where no code tells what else is wrong."""
    for error in (classify(400, words, code=code), classify(400, words, named=code)):
        assert type(error) is EndpointRejected
        assert error.credential_refused
        error.redact()
        assert error.credential_refused


@pytest.mark.parametrize(
    "words",
    [
        "Invalid schema for function 'f': In context=('properties', 'invalid api key'), no type",
        "Tool 'incorrect-api-key' not found in tools",
        "Invalid 'stop': ['invalid api key'] is not supported",
        "'invalid api key' is a required property",
        "invalid_api_key_2 is no name of a tool",
        "no tool 'invalid_api_key', the credit balance is too low",
    ],
)
def test_words_that_a_caller_wrote_open_no_breaker(words: str) -> None:
    """A schema, a name or a stop sequence may be quoted anywhere within a sentence."""
    for code in (None, "invalid_request_error", "invalid_value"):
        assert type(classify(400, words, code=code)) is RequestRejected
        assert not isinstance(classify(None, words, code=code), EndpointRejected)


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize(
    "told", [{"param": "stop"}, {"code": "invalid_value"}, {"named": "unsupported_value"}]
)
def test_a_field_or_a_kind_of_its_own_says_that_the_request_is_at_fault(
    status: int, told: dict[str, str]
) -> None:
    """However the words begin."""
    assert type(classify(status, "Invalid API key: no such stop", **told)) is RequestRejected


@pytest.mark.parametrize(
    "words",
    [
        "tool name is too long",
        "name exceeds max length",
        "Tool name 'range of input length should be' is invalid",
        "bad context",
        "length",
    ],
)
def test_other_words_are_no_context_error(words: str) -> None:
    """A guess would send a wrong request to every endpoint."""
    assert type(classify(400, words)) is RequestRejected


def tree() -> list[type[BackendError]]:
    """Return the classes of the module."""
    members = inspect.getmembers(errors, inspect.isclass)
    return [kind for _, kind in members if issubclass(kind, BackendError)]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    """Every class is drawn under its parent."""
    drawn: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in inspect.getdoc(errors).splitlines()[2:]:
        name = line.lstrip(" |`-").split(" ")[0]
        if not name or not hasattr(errors, name):
            continue
        depth = line.index(name)
        path = [entry for entry in path if entry[0] < depth]
        drawn[name] = path[-1][1] if path else None
        path.append((depth, name))
    found = {k.__name__: None if k is BackendError else k.__bases__[0].__name__ for k in tree()}
    assert drawn == found


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_every_error_says_what_a_client_sees(kind: type[BackendError]) -> None:
    """A status of the 4xx or 5xx and a name for `error_type`."""
    assert 400 <= kind.status < 600
    assert kind.error_type.replace("_", "").isalpha()


def test_silence_and_wrong_wires_are_never_tried_again_here() -> None:
    """Design decision 10."""
    never = {"DeadlineExceeded", "ProtocolError", "RequestRejected", "EndpointRejected"}
    never |= {"ContextLengthExceeded", "ContentFiltered", "Unsupported", "BackendError"}
    assert {kind.__name__ for kind in tree() if not kind.retry_here} == never


@pytest.mark.parametrize(
    ("error", "credential"),
    [
        (classify(401, "no"), True),
        (classify(400, "Incorrect API key provided: sk-acme"), True),
        (classify(400, "no", code="API_KEY_INVALID"), True),
        (classify(404, "no such address"), False),
    ],
)
def test_whether_it_is_about_the_credential_is_told_whatever_the_status(
    error: BackendError, credential: bool
) -> None:
    """Words that may quote a key are shown to nobody."""
    assert isinstance(error, EndpointRejected)
    assert error.credential_refused is credential


@pytest.mark.parametrize("size", [2_000, 64_000])
def test_no_text_of_an_error_is_long(size: int) -> None:
    """Whatever made it: the vendor's words, its code, and the field that it names."""
    for error in (
        classify(400, "." * size, code="." * size, param="." * size),
        ContentFiltered("." * size, upstream_code="." * size),
        UpstreamFailed(f"ended with {'.' * size!r}"),
    ):
        assert len(error.message) == len(str(error)) == MAX_MESSAGE_CHARS
        assert error.upstream_code in (None, "." * MAX_CODE_CHARS)
        assert error.param in (None, "." * MAX_PARAM_CHARS)


def test_a_text_that_is_cut_ends_with_a_whole_word() -> None:
    """Half a key would not be known for one."""
    words = "w " * 990
    assert classify(400, words + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA").message == words
    assert classify(400, "(" + "w" * 3000).message == "(" + "w" * 1999


@pytest.mark.parametrize("known", [["Bearer letm/in9"], []])
def test_a_key_is_taken_out_before_a_text_is_cut(known: list[str]) -> None:
    """Of all texts of an error, wherever the cut would be."""
    key = known[0].removeprefix("Bearer ") if known else "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA"
    for most in (0, MAX_CODE_CHARS, MAX_MESSAGE_CHARS):
        for shift in range(len(key) + 2):
            words = "(" * (most - shift) + key + ")."
            error = classify(400, words, code=words, param=words)
            error.redact(known)
            for text in (error.message, str(error), error.upstream_code, error.param):
                assert text is not None
                assert REDACTED.startswith(text.strip("().") or "[")
