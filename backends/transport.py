"""How bytes travel to HTTP upstreams: the one module that touches the client library.

httpx is the seam (design decision 3). Every failure of it, while connecting and while
reading, becomes one of our errors in one place, so a late break has the same type as an
early one.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from backends.base import BackendConfig
from backends.errors import (
    BackendError,
    ConnectionFailed,
    DeadlineExceeded,
    EndpointRejected,
    Phase,
    ProtocolError,
    StreamTruncated,
    classify,
)
from backends.http1 import HTTPTransport

MAX_ERROR_BODY_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Post:
    """One request to an upstream: path below the base URL, headers, body."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Pooled connections to one upstream, over TCP, TLS or a Unix socket."""

    def __init__(self, config: BackendConfig) -> None:
        """Prepare the pool; nothing connects before the first request.

        Raises:
            ValueError: the base URL is no address.
        """
        self._base_url = _address(config.base_url)
        # Deadlines on silence are the dispatcher's; here only connecting is bounded. No client
        # stands before the transport: its redirects, cookies and proxies are what we forbid.
        self._transport = HTTPTransport(
            connect_s=config.connect_ms / 1000, uds=config.socket_path or None
        )
        self._urls: dict[str, httpx.URL] = {}

    @asynccontextmanager
    async def post(self, call: Post) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send ``call``; entering means a 2xx status, the value is the body as it arrives.

        Raises:
            BackendError: the upstream refused, could not be reached, or broke off.
        """
        with mapped_errors(started=False):
            url = self._urls.get(call.path)
            if url is None:
                url = self._urls[call.path] = httpx.URL(self._base_url + call.path)
            request = httpx.Request("POST", url, headers=call.headers, content=call.body)
            response = await self._transport.handle_async_request(request)
        try:
            if response.status_code >= 300:
                raise await _refusal(response)
            async with aclosing(_body(response)) as body:
                yield body
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()


def _address(base_url: str) -> str:
    """Return a base URL that can be asked; it may hold a secret, so errors do not repeat it."""
    try:
        url = httpx.URL(base_url)
        good = url.scheme in ("http", "https") and url.host and (url.port or 0) < 2**16
    except (httpx.InvalidURL, ValueError):
        good = False
    if not good:
        raise ValueError("'base_url' must be an address such as https://api.example.com/v1")
    return base_url.rstrip("/")


async def _body(response: httpx.Response) -> AsyncGenerator[bytes]:
    size = 0
    with mapped_errors(started=True):
        # Decoding costs as much as the rest of the read, and we ask for no encoding.
        encoded = "content-encoding" in response.headers
        chunks = response.aiter_bytes() if encoded else response.stream
        assert isinstance(chunks, AsyncIterable)
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise ProtocolError(f"the upstream's answer passed {MAX_ANSWER_BYTES} bytes")
            yield chunk


@contextmanager
def mapped_errors(*, started: bool) -> Iterator[None]:
    """Turn the client library's errors into ours.

    Args:
        started: whether an accepted answer is being read (then a break truncates it).
    """
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise DeadlineExceeded("no connection to the upstream in time", phase="connect") from error
    except httpx.TimeoutException as error:
        phase: Phase = "stall" if started else "first_token"
        raise DeadlineExceeded("the upstream stayed silent", phase=phase) from error
    except (httpx.ConnectError, httpx.ProxyError) as error:
        raise ConnectionFailed(f"no connection to the upstream: {error}") from error
    except httpx.DecodingError as error:
        raise ProtocolError(f"the upstream's body cannot be decoded: {error}") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        # The library quotes header values: no word of it may reach a client.
        raise EndpointRejected(
            "the upstream cannot be asked: look at the endpoint's base_url and key"
        ) from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        words = str(error) or type(error).__name__
        if started:
            raise StreamTruncated(f"the upstream broke off its answer: {words}") from error
        raise ConnectionFailed(f"the upstream closed the connection: {words}") from error


async def _refusal(response: httpx.Response) -> BackendError:
    """Read a bounded piece of an error body and say what it stands for."""
    body = b""
    # The status says enough where the body breaks off.
    with suppress(BackendError), mapped_errors(started=True):
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ERROR_BODY_BYTES:
                break
    message, code = read_error(body[:MAX_ERROR_BODY_BYTES])
    if not message:
        message = f"the upstream answered {response.status_code} {response.reason_phrase}"
    # A redirect would carry our key to another address: it is refused like a wrong address.
    return classify(
        response.status_code,
        message,
        code=code,
        retry_after_s=retry_after_s(response.headers.get("retry-after")),
    )


def read_error(body: bytes) -> tuple[str, str | None]:
    """Find message and code in an OpenAI-like error body; ("", None) if there is none."""
    try:
        document = msgspec.json.decode(body)
        if isinstance(document, list) and document:
            document = document[0]
        return error_words(document.get("error") or document if isinstance(document, dict) else "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace").strip()[:500], None


def error_words(error: object) -> tuple[str, str | None]:
    """Return message and code of a decoded error object, whatever its shape."""
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, str):
        return error[:2000], None
    if not isinstance(error, dict):
        return "", None
    message = error.get("message") or error.get("detail") or ""
    code = error.get("code")
    return str(message)[:2000], str(code) if code is not None else None


def retry_after_s(value: str | None) -> float | None:
    """Read a Retry-After header (RFC 9110 10.2.3: seconds or a date); None if unreadable."""
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait_s) if math.isfinite(wait_s) else None
