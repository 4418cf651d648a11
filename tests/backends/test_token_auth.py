"""A token that expires is renewed ahead of time, once, and without holding anybody up."""

from __future__ import annotations

import asyncio

import pytest

from backends.errors import EndpointRejected, UpstreamFailed
from backends.token_auth import RENEW_S, SPARE_S, Token, TokenAuth

pytestmark = pytest.mark.anyio

LIFE_S = 3600.0


class Server:
    """Gives numbered tokens; waits where it is told to."""

    def __init__(self) -> None:
        """Give at once, at time 0."""
        self.now = 0.0
        self.given = 0
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def fetch(self) -> Token:
        """Give the next token."""
        await self.go.wait()
        if self.error is not None:
            raise self.error
        self.given += 1
        return Token(f"t{self.given}", self.now + LIFE_S)

    def auth(self) -> TokenAuth:
        """Return a credential that is had here."""
        return TokenAuth(self.fetch, lambda: self.now)


async def token(auth: TokenAuth) -> str:
    """Return the token of the next request."""
    await auth.ready()
    return auth.headers("https://a.example", b"")["Authorization"]


async def renewed(auth: TokenAuth) -> None:
    """Wait for the renewal under way."""
    assert auth._renewal is not None
    await asyncio.wait([auth._renewal])
    await asyncio.sleep(0)


async def test_a_token_serves_until_shortly_before_its_end() -> None:
    """Nothing is fetched before the first request, nor for each."""
    server = Server()
    auth = server.auth()
    assert server.given == 0
    assert await token(auth) == "Bearer t1"
    server.now = LIFE_S - RENEW_S - 1
    assert await token(auth) == "Bearer t1"
    assert server.given == 1


async def test_many_requests_wait_for_one_token() -> None:
    """One renewal at a time; who leaves takes it from nobody."""
    server = Server()
    server.go.clear()
    auth = server.auth()
    first, *others = [asyncio.create_task(token(auth)) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    server.go.set()
    assert await asyncio.gather(*others) == ["Bearer t1"] * 4
    assert server.given == 1


async def test_nobody_waits_while_the_old_token_serves() -> None:
    """The new one is fetched beside the requests."""
    server = Server()
    auth = server.auth()
    await token(auth)
    server.now = LIFE_S - RENEW_S + 1
    server.go.clear()
    assert await token(auth) == "Bearer t1"
    assert await token(auth) == "Bearer t1"
    server.go.set()
    await renewed(auth)
    assert await token(auth) == "Bearer t2"
    assert server.given == 2


async def test_a_failed_renewal_is_told_only_when_the_token_is_gone() -> None:
    """And each request tries again."""
    server = Server()
    auth = server.auth()
    await token(auth)
    server.now, server.error = LIFE_S - RENEW_S + 1, UpstreamFailed("down")
    assert await token(auth) == "Bearer t1"
    await renewed(auth)
    server.now = LIFE_S - SPARE_S
    with pytest.raises(UpstreamFailed):
        await token(auth)
    server.error = None
    assert await token(auth) == "Bearer t2"


async def test_a_refused_token_is_fetched_anew() -> None:
    """Only by 401, and not when it has been replaced since."""
    server = Server()
    auth = server.auth()
    await token(auth)
    headers = {"X": "y", **auth.headers("", b"")}
    auth.failed(headers, EndpointRejected("no", upstream_status=403))
    assert await token(auth) == "Bearer t1"
    auth.failed(headers, EndpointRejected("no", upstream_status=401))
    assert await token(auth) == "Bearer t2"
    auth.failed(headers, EndpointRejected("no", upstream_status=401))
    assert await token(auth) == "Bearer t2"


async def test_without_a_token_nothing_is_asked() -> None:
    """Headers before a token are a refusal, not an empty header."""
    with pytest.raises(EndpointRejected):
        Server().auth().headers("", b"")
