"""Our HTTP/1.1 transport over real sockets: framing, reuse, back pressure, TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from backends.http1 import HIGH_WATER_BYTES, READ_BYTES, HTTPTransport, trust

pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve raw connections; the value is the base URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    serving = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    port = serving.sockets[0].getsockname()[1]
    async with serving:
        yield f"http{'s' if tls else ''}://localhost:{port}"


async def until(ready: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; a bounded number of times."""
    for _ in range(100_000):
        if ready():
            return
        await asyncio.sleep(0)
    raise AssertionError("waited in vain")


async def post(transport: HTTPTransport, url: str) -> tuple[int, bytes]:
    """Ask once and read the whole answer."""
    response = await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))
    try:
        return response.status_code, await response.aread()
    finally:
        await response.aclose()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request with a body of two bytes."""
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(2)


@pytest.fixture
async def transport() -> AsyncIterator[HTTPTransport]:
    """A transport that is closed at the end."""
    made = HTTPTransport(connect_s=5)
    yield made
    await made.aclose()


async def test_every_framing_of_an_answer_is_read_to_its_end(transport: HTTPTransport) -> None:
    """By length, in chunks, until the close, and after an interim answer."""
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\n\r\nhi",
    ]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answers:
            await read_request(reader)
            writer.write(answers.pop(0))

    async with server(handler) as url:
        assert [await post(transport, url) for _ in range(4)] == [(200, b"hi")] * 4


async def test_a_connection_is_reused_and_a_dead_one_is_not(transport: HTTPTransport) -> None:
    """Two requests on one connection; the upstream hangs up; the third gets a new one."""
    opened = 0
    hung_up = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        for _ in range(2):
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    async with server(handler) as url:
        for _ in range(2):
            assert await post(transport, url) == (200, b"x")
        await hung_up.wait()
        await until(lambda: not any(connection.reusable for connection in transport._idle))
        assert await post(transport, url) == (200, b"x")
        assert opened == 2


@pytest.mark.parametrize("encoding", [b"", b"Content-Encoding: identity\r\n"])
async def test_what_one_reader_left_reaches_no_other(
    transport: HTTPTransport, encoding: bytes
) -> None:
    """An answer that came and was not read ends its connection; however often it is closed."""
    secret = b"for the first one's eyes only"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (encoding, len(secret))
            writer.write(head + secret)

    async with server(handler) as url:
        request = httpx.Request("POST", url, content=b"{}")
        first = await transport.handle_async_request(request)
        connection = first.stream._connection  # type: ignore[union-attr]
        await until(lambda: connection.complete)
        await first.aclose()
        transport.release(connection)
        assert not transport._idle
        assert await post(transport, url) == (200, secret)
        again = transport._idle[0]
        transport.release(again)
        assert list(transport._idle) == [again]


async def test_a_slow_reader_stops_the_upstream(transport: HTTPTransport) -> None:
    """What waits here stays near the mark, however much the upstream would like to send."""
    piece = b"x" * 65536
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.transport.set_write_buffer_limits(0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * 1000))
        for _ in range(1000):
            writer.write(piece)
            await writer.drain()
            sent += 1

    async with server(handler) as url:
        request = httpx.Request("POST", url, content=b"{}")
        response = await transport.handle_async_request(request)
        connection = response.stream._connection  # type: ignore[union-attr]
        await until(lambda: connection._buffered > HIGH_WATER_BYTES)
        assert connection._buffered <= HIGH_WATER_BYTES + READ_BYTES
        assert sent < 1000
        assert len(await response.aread()) == len(piece) * 1000
        await response.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "cut by length", "cut chunk", "no HTTP", "endless head"],
)
async def test_an_answer_that_breaks_is_an_error_of_the_library(
    transport: HTTPTransport, answer: bytes
) -> None:
    """Never an answer that only looks complete."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    async with server(handler) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(transport, url)


async def test_a_second_answer_to_one_request_is_nobodys(transport: HTTPTransport) -> None:
    """It is not added to the first one's body, and not kept for the next request."""
    opened = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await read_request(reader)
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
        writer.write(whole + b"a" + whole + b"b")
        await reader.read()

    async with server(handler) as url:
        for _ in range(2):
            assert await post(transport, url) == (200, b"a")
        assert opened == 2


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody but us trusts, and its key."""
    program = shutil.which("openssl")
    assert program is not None, "the tests need openssl: apt install openssl"
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = (
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    )
    extra = ("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(pem))
    subprocess.run([program, *words, *extra], check=True, capture_output=True)
    return pem, key


async def test_tls_is_spoken_and_strangers_are_not_trusted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trusted certificate works; an unknown one is a failed connection."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

    async with server(handler, tls) as url:
        stranger = HTTPTransport(connect_s=5)
        with pytest.raises(httpx.ConnectError):
            await post(stranger, url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        trust.cache_clear()
        try:
            friend = HTTPTransport(connect_s=5)
            assert await post(friend, url) == (200, b"secret")
        finally:
            trust.cache_clear()
        await friend.aclose()
        await stranger.aclose()


def test_all_transports_share_what_they_trust() -> None:
    """A context each would cost every model of a wildcard 30 ms of the loop, and a megabyte."""
    assert trust() is trust()
