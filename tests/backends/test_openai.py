"""The OpenAI-compatible adapter keeps the contract, over TCP."""

from __future__ import annotations

import pytest

from backends.base import Backend, BackendConfig
from backends.errors import ConnectionFailed, EndpointRejected
from backends.openai import build
from tests.contracts.backend_contract import OpenAIWireContract, everything, replace_request
from tests.upstream import Upstream, answer, serving, streams, unused_port

pytestmark = pytest.mark.anyio


def config(base_url: str, key: str | None = "sk-test") -> BackendConfig:
    """Return the settings of an endpoint."""
    keys = (lambda: key,)
    return BackendConfig("openai", "up-model", base_url, api_keys=keys, options_key="acme")


class TestOpenAI(OpenAIWireContract):
    """Any URL that speaks the wire."""

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return build(config(upstream.base_url))


async def test_a_dead_port_is_a_failed_connection() -> None:
    """Nobody listens: nothing was accepted, and another try may help."""
    backend = build(config(f"http://127.0.0.1:{unused_port()}/v1"))
    with pytest.raises(ConnectionFailed) as caught:
        await everything(backend)
    await backend.aclose()
    assert caught.value.retry_here


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "ftp://127.0.0.1/v1",
        "http:///v1",
        "http://127.0.0.1:port/v1",
        "http://127.0.0.1:99999/v1",
        "http://xn--/v1",
        "https://user:secret@exa\x00mple.com/v1",
    ],
)
def test_an_address_that_cannot_be_asked_is_refused_when_built(url: str) -> None:
    """Not at the first request; and what may hold a secret is not repeated."""
    with pytest.raises(ValueError, match=r"base_url.*https://") as caught:
        build(config(url))
    assert "secret" not in str(caught.value)


async def test_the_key_travels_as_a_bearer_token() -> None:
    """In its header, on every request."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = build(config(upstream.base_url))
        await everything(backend)
        await backend.aclose()
    assert upstream.requests[0].headers["authorization"] == "Bearer sk-test"


async def test_an_endpoint_without_a_key_gets_no_header() -> None:
    """Many local servers want none."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = build(config(upstream.base_url, key=None))
        await everything(backend)
        await backend.aclose()
    assert "authorization" not in upstream.requests[0].headers


@pytest.mark.parametrize("key", ["two\nlines", "sk-\u00fc"])
async def test_a_key_that_no_header_may_carry_asks_nobody(key: str) -> None:
    """A line end in a key must not become a header of its own."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = build(config(upstream.base_url, key=key))
        with pytest.raises(EndpointRejected) as caught:
            await everything(backend)
        await backend.aclose()
    assert upstream.requests == []
    assert key not in caught.value.message


async def test_vendor_options_reach_only_the_endpoint_they_name() -> None:
    """`provider.options.<slug>` is merged for that slug, and for no other."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = build(config(upstream.base_url))
        mine, other = {"safety": "low"}, {"turbo": True}
        preferences = type(replace_request().provider)(
            options={"acme": mine, "b": other, "": other}
        )
        await everything(backend, replace_request(provider=preferences))
        await backend.aclose()
    body = upstream.requests[0].json()
    assert body["safety"] == "low"
    assert "turbo" not in body
