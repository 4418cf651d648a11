"""The Gemini API's adapter keeps the contract, over TCP."""

from __future__ import annotations

from typing import Any

import pytest

from backends import gemini, transport
from backends.base import Backend, BackendConfig
from tests.contracts.backend_contract import everything
from tests.contracts.gemini_contract import GeminiWireContract, answer
from tests.upstream import Upstream, serving, streams

pytestmark = pytest.mark.anyio


def config(base_url: str, model: str = "gemini-2.5-flash", **more: Any) -> BackendConfig:
    """Return the settings of an endpoint."""
    keys = (lambda: "key-test",)
    return BackendConfig("gemini", model, base_url, api_keys=keys, options_key="acme", **more)


class TestGemini(GeminiWireContract):
    """Google's public API, or whoever speaks its wire."""

    path = "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse"

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return gemini.build(config(upstream.base_url))


async def test_the_key_has_its_own_header_and_is_not_in_the_url() -> None:
    """URLs are logged; headers are not."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = gemini.build(config(upstream.base_url))
        await everything(backend)
        await backend.aclose()
    [request] = upstream.requests
    assert request.headers["x-goog-api-key"] == "key-test"
    assert "authorization" not in request.headers
    assert "key-test" not in request.path


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-x", "/v1/models/gemini-x:streamGenerateContent?alt=sse"),
        ("tunedModels/mine", "/v1/tunedModels/mine:streamGenerateContent?alt=sse"),
        ("a?b#c", "/v1/models/a%3Fb%23c:streamGenerateContent?alt=sse"),
    ],
)
async def test_a_model_may_be_given_by_its_whole_name(model: str, path: str) -> None:
    """And no name of one reaches another resource."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = gemini.build(config(upstream.base_url, model))
        await everything(backend)
        await backend.aclose()
    assert upstream.requests[0].path == path


def test_without_a_base_url_google_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its public address."""
    asked = []
    monkeypatch.setattr(gemini, "Transport", lambda config: asked.append(config.base_url))
    gemini.build(config(""))
    assert asked == [gemini.BASE_URL]
    assert transport.Transport(config(gemini.BASE_URL)).url("/x") == (
        "https://generativelanguage.googleapis.com/v1beta/x"
    )


def test_a_model_is_needed() -> None:
    """The key is named, with what to write."""
    gemini.check(config(""))
    with pytest.raises(ValueError, match=r"'model'.*gemini"):
        gemini.check(config("", ""))
