"""``tollway doctor`` asks every endpoint's upstream whether it is there, and sends no prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli.common import Options
from gateway.cli.inspect import _endpoints
from tests.served import tollway
from tests.upstream import Exchange, replies, serving, unused_port

PRICE = {"prompt": "0", "completion": "1"}
LIST = {"data": [{"id": "chat-large"}, {"id": "embed"}]}


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio's own loop, as commands do."""
    return "asyncio"


def file(folder: Path, *endpoints: dict[str, Any], id: str = "acme/chat") -> Path:
    """Write a configuration of one model."""
    path = folder / "t.yaml"
    given = [{"price": PRICE, "provider": f"p{n}", **one} for n, one in enumerate(endpoints)]
    path.write_text(yaml.safe_dump({"models": [{"id": id, "endpoints": given}]}))
    return path


async def looked(path: Path) -> list[dict[str, Any]]:
    """Return what is said of the endpoints."""
    return await _endpoints(Options(True, path, path.parent))


@pytest.mark.anyio
async def test_each_endpoint_has_a_line(tmp_path: Path) -> None:
    """Served, not served (with the nearest name), not there, not asked; all at once."""
    async with serving(replies(200, LIST)) as upstream:
        here = {"backend": "openai", "base_url": upstream.base_url}
        away = {"backend": "openai", "base_url": f"http://127.0.0.1:{unused_port()}", "model": "m"}
        served = {**here, "model": "chat-large"}
        other = {**here, "model": "chat-larg"}
        lines = await looked(file(tmp_path, served, other, away, {"backend": "fake"}))
    assert [line["check"] for line in lines] == [f"endpoint acme/chat at p{n}" for n in range(4)]
    assert [line["ok"] for line in lines] == [True, False, False, True]
    details = [line["detail"] for line in lines]
    assert details[0] == "answers"
    assert "'chat-larg' is not among" in details[1]
    assert "the nearest is 'chat-large'" in details[1]
    assert "no connection" in details[2]
    assert "not asked" in details[3]
    assert {(request.method, request.path) for request in upstream.requests} == {
        ("GET", "/v1/models")
    }


@pytest.mark.anyio
async def test_a_wildcard_has_no_name_to_look_for(tmp_path: Path) -> None:
    """Its callers name the model."""
    async with serving(replies(200, LIST)) as upstream:
        endpoint = {"backend": "openai", "base_url": upstream.base_url, "model": "*"}
        [line] = await looked(file(tmp_path, endpoint, id="acme/*"))
    assert line["ok"]


@pytest.mark.anyio
async def test_a_server_without_models_is_told(tmp_path: Path) -> None:
    """There is no nearest name then."""
    async with serving(replies(200, {"models": []})) as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        endpoint = {"backend": "ollama", "base_url": url, "model": "gemma"}
        [line] = await looked(file(tmp_path, endpoint))
    assert not line["ok"]
    assert "it serves none" in line["detail"]


@pytest.mark.anyio
async def test_a_silent_upstream_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up, whatever the others say."""
    monkeypatch.setattr("gateway.cli.inspect.PROBE_S", 0.05)

    async def silent(exchange: Exchange) -> None:
        await exchange.hang()

    async with serving(silent) as upstream:
        endpoint = {"backend": "vllm", "base_url": upstream.base_url, "model": "m"}
        [line] = await looked(file(tmp_path, endpoint))
    assert (line["ok"], line["detail"]) == (False, "no answer in time")


@pytest.mark.anyio
async def test_an_endpoint_whose_secret_is_missing_is_not_asked(tmp_path: Path) -> None:
    """The others are."""
    endpoint = {"backend": "openai", "base_url": "http://127.0.0.1:9", "model": "m"}
    path = file(tmp_path, {**endpoint, "api_key_env": "NO_SUCH_KEY"}, {"backend": "fake"})
    lines = await looked(path)
    assert [line["ok"] for line in lines] == [False, True]
    assert "NO_SUCH_KEY" in lines[0]["detail"]


def test_an_upstream_that_is_away_is_a_failed_check(tmp_path: Path) -> None:
    """Exit 1, with the line in the report."""
    url = f"http://127.0.0.1:{unused_port()}/v1"
    path = file(tmp_path, {"backend": "openai", "base_url": url, "model": "m"})
    report = tollway("doctor", "--config", str(path), data=tmp_path / "d", expect=1)
    assert [check["check"] for check in report["checks"] if not check["ok"]] == [
        "endpoint acme/chat at p0"
    ]


def test_a_configuration_with_faults_has_no_endpoints(tmp_path: Path) -> None:
    """The fault is told once, by the check of the configuration."""
    path = tmp_path / "t.yaml"
    path.write_text("models: 7")
    report = tollway("doctor", "--config", str(path), data=tmp_path / "d", expect=1)
    assert not any(check["check"].startswith("endpoint") for check in report["checks"])
