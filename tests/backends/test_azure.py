"""Azure OpenAI: both surfaces, deployments, and the older versions' words."""

from __future__ import annotations

from typing import Any

import pytest

import backends
from backends.azure import build
from backends.base import Backend, BackendConfig
from tests.contracts.backend_contract import OpenAIWireContract, everything, replace_request
from tests.upstream import Request, Upstream, answer, serving, streams

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
