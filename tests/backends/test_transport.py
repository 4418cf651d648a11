"""Every error of the client library becomes one of ours, in one place."""

from __future__ import annotations

import inspect

import httpx
import pytest

from backends.base import BackendConfig
from backends.errors import (
    BackendError,
    ConnectionFailed,
    DeadlineExceeded,
    EndpointRejected,
    ProtocolError,
    StreamTruncated,
)
from backends.transport import MappedErrors, Post, Transport
from backends.wire.error_words import read_error
from backends.wire.waits import retry_after_s

_BREAKS = (ConnectionFailed, StreamTruncated)
MAP: dict[type[Exception], tuple[type[BackendError], type[BackendError]]] = {
    httpx.HTTPError: _BREAKS,
    httpx.RequestError: _BREAKS,
    httpx.TransportError: _BREAKS,
    httpx.NetworkError: _BREAKS,
    httpx.ReadError: _BREAKS,
    httpx.WriteError: _BREAKS,
    httpx.CloseError: _BREAKS,
    httpx.ProtocolError: _BREAKS,
    httpx.RemoteProtocolError: _BREAKS,
    httpx.StreamError: _BREAKS,
    httpx.StreamConsumed: _BREAKS,
    httpx.StreamClosed: _BREAKS,
    httpx.ResponseNotRead: _BREAKS,
    httpx.RequestNotRead: _BREAKS,
    httpx.TooManyRedirects: _BREAKS,
    httpx.HTTPStatusError: _BREAKS,
    httpx.ConnectError: (ConnectionFailed, ConnectionFailed),
    httpx.ProxyError: (ConnectionFailed, ConnectionFailed),
    httpx.TimeoutException: (DeadlineExceeded, DeadlineExceeded),
    httpx.ConnectTimeout: (DeadlineExceeded, DeadlineExceeded),
    httpx.ReadTimeout: (DeadlineExceeded, DeadlineExceeded),
    httpx.WriteTimeout: (DeadlineExceeded, DeadlineExceeded),
    httpx.PoolTimeout: (DeadlineExceeded, DeadlineExceeded),
    httpx.DecodingError: (ProtocolError, ProtocolError),
    httpx.UnsupportedProtocol: (EndpointRejected, EndpointRejected),
    httpx.LocalProtocolError: (EndpointRejected, EndpointRejected),
    httpx.InvalidURL: (EndpointRejected, EndpointRejected),
}
"""Each error of the library: ours before an answer was accepted, and ours within one."""

NOT_OURS = {httpx.CookieConflict: "raised by reading cookies, which nothing here does"}


def library_errors() -> set[type[Exception]]:
    """Return every exception class that the library makes public."""
    public = (getattr(httpx, name) for name in httpx.__all__)
    return {c for c in public if inspect.isclass(c) and issubclass(c, Exception)}


def test_the_map_is_whole() -> None:
    """A new version of the library cannot bring an error that nobody thought of."""
    assert library_errors() == set(MAP) | set(NOT_OURS)


@pytest.mark.parametrize("foreign", list(MAP), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("started", [False, True])
def test_an_error_of_the_library_becomes_ours(foreign: type[Exception], started: bool) -> None:
    """With the cause kept, and words in it even where the library has none."""
    cause = foreign.__new__(foreign)
    Exception.__init__(cause, "")
    with pytest.raises(BackendError) as caught, MappedErrors(started=started):
        raise cause
    assert type(caught.value) is MAP[foreign][started]
    assert caught.value.__cause__ is cause
    assert caught.value.message.rstrip(": ")


@pytest.mark.parametrize(
    ("foreign", "started", "phase"),
    [
        (httpx.ConnectTimeout, False, "connect"),
        (httpx.PoolTimeout, False, "connect"),
        (httpx.ReadTimeout, False, "first_token"),
        (httpx.ReadTimeout, True, "stall"),
    ],
)
def test_silence_says_which_deadline_passed(
    foreign: type[httpx.TimeoutException], started: bool, phase: str
) -> None:
    """And silence is never tried again at the same place."""
    with pytest.raises(DeadlineExceeded) as caught, MappedErrors(started=started):
        raise foreign("")
    assert caught.value.phase == phase
    assert not caught.value.retry_here


def test_an_error_that_is_not_the_librarys_passes_unchanged() -> None:
    """Our own errors and our own faults are not renamed."""
    for error in (ProtocolError("ours"), KeyError("a fault of ours")):
        with pytest.raises(type(error)) as caught, MappedErrors(started=True):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("soon", None),
        ("", None),
        ("inf", None),
        ("nan", None),
        ("1e999", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_or_unknown(value: str | None, seconds: float | None) -> None:
    """A wait is finite and not below zero; what cannot be read is None, not a guess."""
    assert retry_after_s(value) == seconds


@pytest.mark.parametrize(
    ("body", "words", "code"),
    [
        (b'{"error": {"message": "no", "code": "c"}}', "no", "c"),
        (b'{"error": {"message": "no", "code": 429}}', "no", "429"),
        (b'{"error": {"message": "no", "code": null}}', "no", None),
        (b'{"error": "no"}', "no", None),
        (b'{"error": ["no", "more"]}', "no", None),
        (b'[{"error": {"message": "no", "code": 400}}]', "no", "400"),
        (b'{"message": "no"}', "no", None),
        (b'{"object": "error", "message": "no", "code": "1300"}', "no", "1300"),
        (b'{"detail": "no"}', "no", None),
        (b'{"error": null, "message": "no"}', "no", None),
        (b"no", "no", None),
        (b" \n", "", None),
        (b"[]", "", None),
        (b"17", "", None),
        (b'{"error": {}}', "", None),
    ],
)
def test_an_error_body_of_any_shape_gives_its_words(
    body: bytes, words: str, code: str | None
) -> None:
    """Vendors agree on no shape; see the recordings."""
    assert read_error(body)[:2] == (words, code)


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["a\nX: b", "a\rX: b", "a\r\nX: b", "a\0b", "\xe9"])
async def test_no_header_can_be_smuggled_into_a_request(value: str) -> None:
    """Nothing is sent, and the error does not repeat it: it may be a key."""
    transport = Transport(BackendConfig(kind="openai", model="m", base_url="http://127.0.0.1:9"))
    with pytest.raises(EndpointRejected) as caught:
        await transport.post(Post("/x", {"Authorization": value}, b""))
    assert value not in caught.value.message
