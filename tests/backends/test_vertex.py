"""Vertex AI's adapter keeps the contract, with either wire and either kind of token."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import check as check_config
from backends import load, vertex
from backends.base import Backend, BackendConfig
from backends.errors import EndpointRejected
from backends.token_auth import TokenAuth
from tests.contracts.backend_contract import everything, into, replace_request, texts
from tests.contracts.gemini_contract import GeminiWireContract, answer
from tests.upstream import Exchange, Script, Upstream, data, replies, serving, streams

pytestmark = pytest.mark.anyio


def config(base_url: str = "", model: str = "gemini-2.5-flash", **options: Any) -> BackendConfig:
    """Return the settings of an endpoint."""
    given = {"project": "p-1", "location": "europe-west4", **options}
    keys = (lambda: "token-test",)
    return BackendConfig(
        "vertex", model, base_url, api_keys=keys, options_key="acme", options=given
    )


class TestVertexGemini(GeminiWireContract):
    """Gemini's wire, under a project and a location."""

    path = (
        "/v1/projects/p-1/locations/europe-west4/publishers/google/models/gemini-2.5-flash"
        ":streamGenerateContent?alt=sse"
    )

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return load(config(upstream.base_url))


async def asked(base: BackendConfig, *scripts: Script) -> Upstream:
    """Ask once and return the server that was asked."""
    async with serving(*scripts) as upstream:
        backend = vertex.build(
            BackendConfig(
                "vertex",
                base.model,
                upstream.base_url,
                api_keys=base.api_keys,
                options=base.options,
            )
        )
        try:
            await everything(backend)
        finally:
            await backend.aclose()
    return upstream


async def test_an_access_token_from_outside_is_a_bearer_token() -> None:
    """As every key of an endpoint: given by a variable or a file."""
    upstream = await asked(config(), streams(*answer("ok")))
    assert upstream.requests[0].headers["authorization"] == "Bearer token-test"


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_without_a_base_url_the_host_of_the_location_is_asked(
    location: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions, multi-regions and the global endpoint have hosts of their own."""
    bases = []
    monkeypatch.setattr(vertex, "Transport", lambda config: bases.append(config.base_url))
    vertex.build(config(location=location))
    assert bases == [f"https://{host}/v1"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": ""}, "'model'"),
        ({"project": ""}, "'project'"),
        ({"api": "openai"}, "api"),
        ({"publisher": "acme"}, "publisher"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], words: str) -> None:
    """Before any secret is known."""
    check_config(config())
    with pytest.raises(ValueError, match=words):
        check_config(config(**changes))


async def test_the_publisher_may_be_chosen_and_nothing_is_guessed_from_a_name() -> None:
    """A model named claude speaks Gemini's wire until the configuration says otherwise."""
    upstream = await asked(config(model="claude-x"), streams(*answer("ok")))
    assert "/publishers/google/models/claude-x:streamGenerateContent" in upstream.requests[0].path


@pytest.mark.parametrize("options", [{"api": "anthropic"}, {"publisher": "anthropic"}])
async def test_anthropics_models_speak_anthropics_wire(options: dict[str, str]) -> None:
    """The URL names the model, the body the version; it streams as Anthropic does."""
    start = {"id": "msg-1", "type": "message", "role": "assistant", "model": "claude-x"}
    usage = {"input_tokens": 7, "output_tokens": 1}
    events = [
        {"type": "message_start", "message": {**start, "content": [], "usage": usage}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    ]
    named = [b"event: " + e["type"].encode() + b"\n" + data(e) for e in events]  # type: ignore[attr-defined]
    async with serving(streams(*named)) as upstream:
        backend = vertex.build(config(upstream.base_url, "claude-x@20250219", **options))
        said = texts(await everything(backend))
        await backend.aclose()
    assert said == ["ok"]
    [request] = upstream.requests
    assert request.path == (
        "/v1/projects/p-1/locations/europe-west4/publishers/anthropic/models/claude-x@20250219"
        ":streamRawPredict"
    )
    body = request.json()
    assert body["anthropic_version"] == "vertex-2023-10-16"
    assert body["stream"] is True
    assert body["max_tokens"] == 64
    assert "model" not in body
    assert request.headers["authorization"] == "Bearer token-test"


def key_file(folder: Path, token_uri: str) -> Path:
    """Write the key file of a service account made for this test."""
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    pytest.importorskip("google.auth")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    document = {
        "type": "service_account",
        "project_id": "p-1",
        "private_key_id": "k-1",
        "private_key": pem.decode(),
        "client_email": "tests@p-1.example",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path = folder / "account.json"
    path.write_text(json.dumps(document))
    return path


async def tokens(exchange: Exchange) -> None:
    """Play the token server."""
    assert b"grant_type=urn" in exchange.request.body
    grant = {"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"}
    await replies(200, grant)(exchange)


async def test_a_service_account_gets_a_token_and_keeps_it(tmp_path: Path) -> None:
    """One signed request to the token server, and then one token for many requests."""
    async with serving(tokens) as server, serving(streams(*answer("ok"))) as upstream:
        path = key_file(tmp_path, f"http://127.0.0.1:{server.port}/token")
        backend = vertex.build(config(upstream.base_url, credentials_file=str(path)))
        assert server.requests == []
        for _ in range(3):
            await everything(backend)
        await backend.aclose()
    assert len(server.requests) == 1
    assert {r.headers["authorization"] for r in upstream.requests} == {"Bearer granted"}


async def test_a_service_account_that_is_refused_is_the_endpoints_fault(tmp_path: Path) -> None:
    """Another endpoint is asked; nothing of the file is told."""
    refused = replies(400, {"error": "invalid_grant", "error_description": "Invalid JWT"})
    async with serving(refused) as server, serving(streams(*answer("ok"))) as upstream:
        path = key_file(tmp_path, f"http://127.0.0.1:{server.port}/token")
        backend = vertex.build(config(upstream.base_url, credentials_file=str(path)))
        with pytest.raises(EndpointRejected) as caught:
            await into([], backend, replace_request())
        await backend.aclose()
    assert upstream.requests == []
    assert "example" not in caught.value.message
    assert caught.value.move_on


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_a_file_that_is_no_key_file_is_named_when_built(
    content: str | None, tmp_path: Path
) -> None:
    """Not at the first request."""
    pytest.importorskip("google.auth")
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match="'credentials_file'"):
        vertex.build(config("http://127.0.0.1:1", credentials_file=str(path)))


async def test_without_a_key_google_s_default_credentials_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Google's own clients find them, with the project that pays where it is another."""
    pytest.importorskip("google.auth")
    backend = vertex.build(replace(config(), api_keys=()))
    async with serving(tokens) as server:
        path = key_file(tmp_path, f"http://127.0.0.1:{server.port}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "p-2")
        await backend._auth.ready()
    sent = {"Authorization": "Bearer granted", "x-goog-user-project": "p-2"}
    assert backend._auth.headers("", b"") == sent
    await backend.aclose()


@pytest.mark.parametrize(
    ("base_url", "shown"),
    [
        ("", True),
        ("https://europe-west4-acme.p.googleapis.com/v1", True),
        ("https://proxy.example/v1", False),
        ("https://googleapis.com.example/v1", False),
        ("HTTP://aiplatform.googleapis.com/v1", False),
    ],
)
async def test_only_google_is_shown_the_machines_own_credentials(
    base_url: str, shown: bool
) -> None:
    """A proxy of one's own has a key, or none."""
    pytest.importorskip("google.auth")
    backend = vertex.build(replace(config(base_url), api_keys=()))
    assert isinstance(backend._auth, TokenAuth) == shown
    await backend.aclose()


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"type": "external_account"}', "no"])
async def test_a_strange_file_of_default_credentials_rejects_the_endpoint(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever google-auth makes of it: the next endpoint is asked."""
    pytest.importorskip("google.auth")
    path = tmp_path / "strange.json"
    path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    backend = vertex.build(replace(config(), api_keys=()))
    with pytest.raises(EndpointRejected, match="no Google credentials"):
        await backend._auth.ready()
    await backend.aclose()


async def test_where_there_are_none_the_endpoint_is_rejected_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next endpoint is asked."""
    pytest.importorskip("google.auth")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    backend = vertex.build(replace(config(), api_keys=()))
    with pytest.raises(EndpointRejected, match="GOOGLE_APPLICATION_CREDENTIALS"):
        await backend._auth.ready()
    await backend.aclose()


async def test_a_private_server_on_plain_http_is_asked_without_credentials() -> None:
    """Nobody else's account is looked for."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = vertex.build(replace(config(upstream.base_url), api_keys=()))
        assert texts(await everything(backend)) == ["ok"]
        await backend.aclose()
    assert "authorization" not in upstream.requests[0].headers
