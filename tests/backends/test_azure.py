"""Azure OpenAI: both surfaces, deployments, and the older versions' words."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any
from urllib.parse import parse_qs

import pytest

import backends
from backends.azure import build
from backends.base import Backend, BackendConfig
from backends.entra_auth import Application, application
from backends.errors import BackendError, EndpointRejected, ProtocolError, UpstreamFailed
from backends.token_auth import RENEW_S, TokenAuth
from tests.contracts.backend_contract import OpenAIWireContract, everything, replace_request
from tests.upstream import (
    Request,
    Script,
    Upstream,
    answer,
    replies,
    serving,
    streams,
    unused_port,
)

pytestmark = pytest.mark.anyio


def config(base_url: str, **options: Any) -> BackendConfig:
    """Return the settings of an endpoint."""
    keys = (lambda: "az-key",)
    return BackendConfig("azure", "up-model", base_url, api_keys=keys, options=options)


async def asked(suffix: str, **options: Any) -> Request:
    """Return what is sent to a resource whose address ends like this."""
    async with serving(streams(*answer("ok"))) as upstream:
        address = upstream.base_url.removesuffix("/v1") + suffix
        backend = build(config(address, **options))
        await everything(backend)
        await backend.aclose()
    return upstream.requests[0]


class TestAzure(OpenAIWireContract):
    """The surface without versions."""

    output_field = "max_completion_tokens"

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return build(config(upstream.base_url))


class TestDeployment(OpenAIWireContract):
    """A deployment under a version."""

    output_field = "max_completion_tokens"
    path = "/v1/openai/deployments/up-model/chat/completions?api-version=2024-12-01-preview"

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return build(config(upstream.base_url, api_version="2024-12-01-preview"))


@pytest.mark.parametrize(
    ("suffix", "options", "path"),
    [
        ("", {}, "/openai/v1/chat/completions"),
        ("/openai/v1", {}, "/openai/v1/chat/completions"),
        ("/openai/v1/", {}, "/openai/v1/chat/completions"),
        ("", {"api": "completions"}, "/openai/v1/completions"),
        (
            "",
            {"api_version": "2024-10-21"},
            "/openai/deployments/up-model/chat/completions?api-version=2024-10-21",
        ),
        (
            "/openai",
            {"api_version": "2024-10-21", "api": "completions"},
            "/openai/deployments/up-model/completions?api-version=2024-10-21",
        ),
    ],
)
async def test_the_address_says_which_surface(
    suffix: str, options: dict[str, Any], path: str
) -> None:
    """With a version the deployment stands in the path; the key has a header of its own."""
    request = await asked(suffix, **options) if "api" not in options else None
    if request is None:
        async with serving(streams(b"data: {}\n\n")) as upstream:
            backend = build(config(upstream.base_url.removesuffix("/v1") + suffix, **options))
            with pytest.raises(Exception, match="finish reason"):
                await everything(backend, replace_request())
            await backend.aclose()
        request = upstream.requests[0]
    assert request.path == path
    assert request.headers["api-key"] == "az-key"
    assert "authorization" not in request.headers


async def test_an_old_version_gets_the_words_it_knows() -> None:
    """Before September 2024: ``max_tokens``, and usage cannot be asked for."""
    body = (await asked("", api_version="2024-02-01")).json()
    assert body["max_tokens"] == 64
    assert "stream_options" not in body


def test_an_address_is_needed() -> None:
    """Each customer has one."""
    with pytest.raises(ValueError, match=r"base_url.*openai\.azure\.com"):
        backends.check(config(""))


GRANT = {"token_type": "Bearer", "expires_in": 3599, "access_token": "granted"}


async def with_tokens(
    *tokens: Script, keys: tuple[str, ...] = ("secret~1",)
) -> tuple[list[Request], list[Request]]:
    """Ask twice with an application; return what the token server and the resource were asked."""
    async with serving(*tokens) as server, serving(streams(*answer("ok"))) as upstream:
        given = config(
            upstream.base_url,
            tenant_id="a/tenant",
            client_id="app",
            authority=f"http://127.0.0.1:{server.port}",
        )
        secrets = tuple((lambda key=key: key) for key in keys)
        backend = build(dataclasses.replace(given, api_keys=secrets))
        assert server.requests == []
        try:
            for _ in range(2):
                await everything(backend)
        finally:
            await backend.aclose()
    return server.requests, upstream.requests


async def test_an_application_gets_a_token_and_keeps_it() -> None:
    """One form to the tenant's token server, the key as client secret; then a bearer token."""
    [asked_token], requests = await with_tokens(replies(200, GRANT))
    assert asked_token.path == "/a%2Ftenant/oauth2/v2.0/token"
    assert asked_token.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(asked_token.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["app"],
        "client_secret": ["secret~1"],
        "scope": ["https://cognitiveservices.azure.com/.default"],
    }
    assert [request.headers["authorization"] for request in requests] == ["Bearer granted"] * 2
    assert all("api-key" not in request.headers for request in requests)


async def test_a_new_secret_works_beside_the_old_one() -> None:
    """The first that is accepted counts."""
    refused = replies(401, {"error": "invalid_client"})
    tokens, requests = await with_tokens(refused, replies(200, GRANT), keys=("old", "new"))
    secrets = [parse_qs(request.body.decode())["client_secret"] for request in tokens]
    assert secrets == [["old"], ["new"]]
    assert len(requests) == 2


async def test_a_refused_token_is_fetched_anew() -> None:
    """A 401 of the resource ends the token, not the endpoint."""
    async with (
        serving(replies(200, GRANT), replies(200, {**GRANT, "access_token": "other"})) as server,
        serving(replies(401, {}), streams(*answer("ok"))) as upstream,
    ):
        authority = f"http://127.0.0.1:{server.port}"
        backend = build(
            config(upstream.base_url, tenant_id="t", client_id="c", authority=authority)
        )
        with pytest.raises(EndpointRejected):
            await everything(backend)
        await everything(backend)
        await backend.aclose()
    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == ["Bearer granted", "Bearer other"]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            replies(400, {"error": "invalid_request", "error_description": "tenant 7"}),
            EndpointRejected,
        ),
        (replies(401, {"error": "invalid_client", "error_description": "app 7"}), EndpointRejected),
        (replies(429, {"error": "x", "error_description": "tenant 7"}), UpstreamFailed),
        (replies(503, b"tenant 7 is away"), UpstreamFailed),
        (replies(200, b"<html>7"), ProtocolError),
        (replies(200, {**GRANT, "access_token": ""}), ProtocolError),
        (replies(200, {**GRANT, "access_token": "a\nb"}), ProtocolError),
        (replies(200, {**GRANT, "expires_in": 0}), ProtocolError),
    ],
)
async def test_without_a_token_nothing_is_asked_and_another_endpoint_may_be(
    script: Script, error: type[BackendError]
) -> None:
    """It is never the request's fault, and what the token server says is not told."""
    with pytest.raises(error) as caught:
        await with_tokens(script)
    assert caught.value.move_on
    assert "7" not in caught.value.message


async def test_a_token_server_that_is_not_there_is_a_failure() -> None:
    """Which may be over soon."""
    authority = f"http://127.0.0.1:{unused_port()}"
    backend = build(config("http://127.0.0.1:9", tenant_id="t", client_id="c", authority=authority))
    with pytest.raises(UpstreamFailed):
        await everything(backend)
    await backend.aclose()


async def test_a_token_is_renewed_ahead_of_its_end() -> None:
    """By the clock of when it was asked for; the old one serves meanwhile."""
    now = [1000.0]
    grants = [replies(200, {**GRANT, "access_token": name}) for name in ("one", "two")]
    async with serving(*grants) as server:
        who = Application("t", "c", f"http://127.0.0.1:{server.port}")
        auth = TokenAuth(
            application(config("http://127.0.0.1:9"), who, lambda: now[0]), lambda: now[0]
        )
        await auth.ready()
        now[0] += 3599 - RENEW_S - 1
        await auth.ready()
        assert len(server.requests) == 1
        now[0] += 1
        await auth.ready()
        assert auth.headers("", b"") == {"Authorization": "Bearer one"}
        assert auth._renewal is not None
        await asyncio.wait([auth._renewal])
        assert auth.headers("", b"") == {"Authorization": "Bearer two"}


@pytest.mark.parametrize("options", [{"tenant_id": "t"}, {"client_id": "c"}])
def test_half_an_application_is_a_fault(options: dict[str, str]) -> None:
    """Said before any secret is looked up."""
    with pytest.raises(ValueError, match="'tenant_id' and 'client_id'"):
        backends.check(config("https://acme.openai.azure.com", **options))


@pytest.mark.parametrize("authority", ["login", "https://", ""])
def test_an_authority_that_is_no_address_is_named(authority: str) -> None:
    """When the endpoint is built, not at the first request."""
    options = {"tenant_id": "t", "client_id": "c", "authority": authority}
    with pytest.raises(ValueError, match="'authority'"):
        build(config("https://acme.openai.azure.com", **options))


def test_an_application_needs_its_secret() -> None:
    """Said when the endpoint is built, with the key to write."""
    given = config("https://acme.openai.azure.com", tenant_id="t", client_id="c")
    with pytest.raises(ValueError, match="api_key_env"):
        build(dataclasses.replace(given, api_keys=()))
