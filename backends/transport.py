"""How bytes travel to HTTP upstreams: the one module that touches the client library.

httpx is the seam (design decision 3). Every failure of it, while connecting and while
reading, becomes one of our errors in one place, so a late break has the same type as an
early one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import httpx

from backends.base import BackendConfig
from backends.errors import (
    BackendError,
    ConnectionFailed,
    DeadlineExceeded,
    EndpointRejected,
    Phase,
    ProtocolError,
    StreamTruncated,
)
from backends.http1 import Connection, HTTPTransport
from backends.wire.failure import refusal

MAX_ERROR_BODY_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_LIST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Post:
    """One request to an upstream: path below the base URL, headers, body."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class MappedErrors:
    """A context in which the client library's errors become ours. Has no state of its own."""

    __slots__ = ("_started",)

    def __init__(self, *, started: bool) -> None:
        """``started`` says that an accepted answer is being read: then a break truncates it."""
        self._started = started

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raise what an error of the library stands for, with the error as its cause."""
        if error is not None and (ours := _ours(error, started=self._started)) is not None:
            raise ours from error


_ASKING = MappedErrors(started=False)
_READING = MappedErrors(started=True)


class Answer:
    """An accepted answer's body, as it arrives."""

    __slots__ = ("_connection", "_decoded", "_pool", "_size")

    def __init__(
        self, pool: HTTPTransport, connection: Connection, decoded: AsyncIterator[bytes] | None
    ) -> None:
        """``decoded`` reads the body where it is encoded, which we do not ask for."""
        self._pool = pool
        self._connection: Connection | None = connection
        self._decoded = decoded
        self._size = 0

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._connection is None

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return self._connection is None or self._connection.complete

    async def read(self) -> bytes:
        """Return what has arrived, at least a byte; nothing at the end.

        Raises:
            BackendError: it broke off, or is too long.
        """
        connection = self._connection
        if connection is None:
            return b""
        try:
            if self._decoded is None:
                data = await connection.read()
            else:
                data = await anext(self._decoded, b"")
        except Exception as error:
            if (ours := _ours(error, started=True)) is not None:
                raise ours from error
            raise
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            raise ProtocolError(f"the upstream's answer passed {MAX_ANSWER_BYTES} bytes")
        return data

    async def whole(self) -> bytes:
        """Return all of it, and close.

        Raises:
            BackendError: as ``read``.
        """
        body = bytearray()
        try:
            while data := await self.read():
                body += data
        finally:
            self.close()
        return bytes(body)

    def close(self) -> None:
        """Give the connection back if all was read, else end it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


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
        self._begun: dict[str, tuple[httpx.URL, str]] = {}

    async def post(self, call: Post) -> Answer:
        """Send ``call``; returning means a 2xx status, and that the answer is yours to close.

        Raises:
            BackendError: the upstream refused, could not be reached, or broke off.
        """
        with _ASKING:
            url, head = self._begin(call.path)
            lines = "".join([f"{name}: {value}\r\n" for name, value in call.headers.items()])
            breaks = (lines.count("\n"), lines.count("\r"))
            if breaks != (len(call.headers),) * 2 or "\0" in lines or not lines.isascii():
                raise httpx.LocalProtocolError("a header's value is none")
            head = f"{head}{lines}Content-Length: {len(call.body)}\r\n\r\n"
            connection = await self._transport.ask(url, head.encode(), call.body)
        decoded = None
        encoding = connection.header(b"content-encoding")
        if connection.status >= 300 or (encoding and encoding.lower() != b"identity"):
            response = self._transport.response(connection, httpx.Request("POST", url))
            if connection.status >= 300:
                raise await _refusal(response)
            decoded = response.aiter_bytes()
        return Answer(self._transport, connection, decoded)

    async def get(
        self, path: str, headers: Mapping[str, str], most_bytes: int = MAX_LIST_BYTES
    ) -> bytes:
        """Return what is at a path, whole: for lists and states, which are small.

        Raises:
            BackendError: as ``post``; or the answer broke off, or is too long.
        """
        with _ASKING:
            request = httpx.Request("GET", self._base_url + path, headers=dict(headers))
            response = await self._transport.handle_async_request(request)
        if response.status_code >= 300:
            raise await _refusal(response)
        body = bytearray()
        try:
            with _READING:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > most_bytes:
                        raise ProtocolError(f"the upstream's list passed {most_bytes} bytes")
        finally:
            await response.aclose()
        return bytes(body)

    def url(self, path: str) -> str:
        """Return the address of a path, as a signature needs it."""
        return self._base_url + path

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()

    def _begin(self, path: str) -> tuple[httpx.URL, str]:
        """Return the URL of a path, and how a request's head begins there."""
        found = self._begun.get(path)
        if found is None:
            url = httpx.URL(self._base_url + path)
            host = httpx.Request("POST", url).headers["host"]
            start = f"POST {url.raw_path.decode()} HTTP/1.1\r\nHost: {host}\r\n"
            found = self._begun[path] = (url, start)
        return found


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


def _ours(error: BaseException, *, started: bool) -> BackendError | None:
    """Return what an error of the client library stands for; None if it is not of the library."""
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return DeadlineExceeded("no connection to the upstream in time", phase="connect")
        case httpx.TimeoutException():
            phase: Phase = "stall" if started else "first_token"
            return DeadlineExceeded("the upstream stayed silent", phase=phase)
        case httpx.ConnectError() | httpx.ProxyError():
            return ConnectionFailed(f"no connection to the upstream: {error}")
        case httpx.DecodingError():
            return ProtocolError(f"the upstream's body cannot be decoded: {error}")
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            # The library quotes header values: no word of it may reach a client.
            return EndpointRejected(
                "the upstream cannot be asked: look at the endpoint's base_url and key"
            )
        case httpx.HTTPError() | httpx.StreamError():
            words = str(error) or type(error).__name__
            if started:
                return StreamTruncated(f"the upstream broke off its answer: {words}")
            return ConnectionFailed(f"the upstream closed the connection: {words}")
        case _:
            return None


async def _refusal(response: httpx.Response) -> BackendError:
    """Read a bounded piece of an error body and say what it stands for."""
    body = b""
    # The status says enough where the body breaks off.
    try:
        with suppress(BackendError), _READING:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ERROR_BODY_BYTES:
                    break
    finally:
        await response.aclose()
    headers = {name.lower(): value for name, value in response.headers.items()}
    return refusal(
        response.status_code, response.reason_phrase, headers, body[:MAX_ERROR_BODY_BYTES]
    )
