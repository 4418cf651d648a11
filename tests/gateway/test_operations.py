"""What operators read: health, metrics, log lines, the catalogue; and what a worker weighs."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.health import Health, merged
from gateway.log import JSONFormatter
from tests.gateway_harness import FREE, Gateway, fake, model, running, settings
from tests.valkey_server import ValkeyServer

pytestmark = pytest.mark.anyio

METRICS = {
    "tollway_requests_total": {"dialect", "model", "status"},
    "tollway_attempts_total": {"provider", "model", "outcome"},
    "tollway_first_token_seconds": {"provider", "model"},
    "tollway_request_seconds": {"model"},
    "tollway_output_tokens_per_second": {"provider", "model"},
    "tollway_overhead_seconds": set(),
    "tollway_tokens_total": {"provider", "model", "kind"},
    "tollway_charge_nanodollars_total": {"model"},
    "tollway_cost_nanodollars_total": {"provider", "model", "won"},
    "tollway_rejections_total": {"reason"},
    "tollway_breaker_open": {"provider", "model"},
    "tollway_hedges_total": {"outcome"},
    "tollway_ledger_seconds": {"op"},
    "tollway_ledger_open_holds": set(),
    "tollway_open_streams": set(),
    "tollway_queue_depth": set(),
    "tollway_event_loop_lag_seconds": set(),
}
"""The names and labels that dashboards rely on."""


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    """A worker with a model that works and one that does not."""
    given = settings(model(fake(tokens=3)), model(fake(fail={"status": 401}), id="m/down"))
    async with running(redis_url, given) as gateway:
        yield gateway


async def test_every_metric_is_there_under_its_name_with_its_labels(gateway: Gateway) -> None:
    """After one answer, one failure and one refusal; and no label has a text of a user."""
    _ = await gateway.stream()
    _ = await gateway.chat(model="m/down")
    _ = await gateway.chat(model="canary-of-a-user")
    _ = await gateway.chat("canary-of-a-key")
    _ = await gateway.audited()
    reply = await gateway.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    declared = set(re.findall(r"^# TYPE (\S+)", reply.text, re.M))
    assert METRICS.keys() <= declared
    allowed = {name: labels | {"le"} for name, labels in METRICS.items()}
    for name, labels in re.findall(
        r"^(tollway_\w+?)(?:_bucket|_count|_sum)?\{(.*?)\} ", reply.text, re.M
    ):
        if not name.endswith("_created"):
            assert set(re.findall(r'(\w+)="', labels)) <= allowed[name], name
    assert "canary" not in reply.text
    assert "acct" not in reply.text
    for line, value in (
        ('tollway_requests_total{dialect="openai",model="demo/fake",status="200"}', 1),
        ('tollway_requests_total{dialect="openai",model="m/down",status="502"}', 1),
        ('tollway_requests_total{dialect="openai",model="",status="400"}', 1),
        ('tollway_attempts_total{model="demo/fake",outcome="ok",provider="fake"}', 1),
        ('tollway_attempts_total{model="m/down",outcome="EndpointRejected",provider="fake"}', 1),
        ('tollway_first_token_seconds_count{model="demo/fake",provider="fake"}', 1),
        ('tollway_request_seconds_count{model="demo/fake"}', 1),
        ('tollway_output_tokens_per_second_count{model="demo/fake",provider="fake"}', 1),
        ("tollway_overhead_seconds_count", 2),
        ('tollway_tokens_total{kind="completion",model="demo/fake",provider="fake"}', 3),
        ('tollway_charge_nanodollars_total{model="demo/fake"}', 3000),
        ('tollway_cost_nanodollars_total{model="demo/fake",provider="fake",won="true"}', 3000),
        ('tollway_rejections_total{reason="model_not_found"}', 1),
        ('tollway_rejections_total{reason="authentication"}', 1),
        ('tollway_breaker_open{model="m/down",provider="fake"}', 1),
        ('tollway_breaker_open{model="demo/fake",provider="fake"}', 0),
        ('tollway_ledger_seconds_count{op="reserve"}', 2),
        ('tollway_ledger_seconds_count{op="settle"}', 1),
        ('tollway_ledger_seconds_count{op="void"}', 1),
        ("tollway_open_streams", 0),
    ):
        assert await gateway.metric(line) == value, line


async def test_each_request_has_one_line_with_all_that_an_operator_asks(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Ids, account, key id, model, endpoint, status, times, tokens, charge; also when refused."""
    caplog.set_level(logging.INFO, "tollway.access")
    good = await gateway.chat()
    bad = await gateway.chat(model="m/down")
    unknown = await gateway.chat(model="what")
    gateway.worker.metrics.access.flush()
    records = [record for record in caplog.records if record.name == "tollway.access"]
    lines = [json.loads(line) for r in records for line in JSONFormatter().format(r).splitlines()]
    assert [line["status"] for line in lines] == [200, 502, 400]
    first, second, third = lines
    assert first["message"] == "request"
    assert first["request_id"] == good.headers["x-request-id"]
    assert first["generation_id"] == good.json()["id"]
    assert first["account"] == "acct"
    assert first["key"] == gateway.key.split("_")[1]
    assert (first["model"], first["endpoint"]) == ("demo/fake", "demo/fake@fake")
    assert (first["outcome"], first["streamed"], first["attempts"]) == ("finished", False, 1)
    assert first["tokens"]["completion"] == 3
    assert first["charge_nanodollars"] == 3000
    assert 0 <= first["first_token_ms"] <= first["total_ms"]
    assert first["error"] is None
    assert second["request_id"] == bad.headers["x-request-id"]
    assert (second["error"], second["charge_nanodollars"]) == ("provider_unavailable", 0)
    assert (third["error"], third["model"]) == ("model_not_found", "")
    assert third["request_id"] == unknown.headers["x-request-id"]


async def test_ready_says_what_it_waits_for(redis_url: str) -> None:
    """Live at once; ready when Redis answers; unannounced workers are not."""
    async with running(redis_url, settings(model(fake()))) as gateway:
        reply = await gateway.client.get("/health/ready")
        assert (reply.status_code, reply.json()) == (
            200,
            {"status": "ok", "checks": {"redis": "ok"}},
        )
        assert (await gateway.client.get("/health/live")).json() == {"status": "ok"}
        announced = False
        health = Health(gateway.ledger, {}, lambda: announced)
        assert await health.checks() == (False, {"redis": "ok", "supervisor": "starting"})
        announced = True
        assert await health.checks() == (True, {"redis": "ok"})
        await health.aclose()


async def test_an_engine_that_does_not_answer_keeps_a_worker_unready(
    redis_url: str, tmp_path: Path
) -> None:
    """Each engine counts until it has been ready once; its state shows in ``checks``."""
    async with running(redis_url, settings(model(fake()))) as gateway:
        health = Health(gateway.ledger, {"local/x": str(tmp_path / "none.sock")}, lambda: True)
        assert await health.checks() == (False, {"redis": "ok", "engine:local/x": "down"})
        assert await health.engine_metrics() == b""
        await health.aclose()


async def test_the_catalogue_shows_what_a_caller_pays(redis_url: str) -> None:
    """Prices are texts in USD per token with the markup, at most 12 decimals; a key is optional."""
    price = {"prompt": "0.15", "completion": "0.6", "cached": "0.075", "request": "0.001"}
    given = settings(
        model(fake(price) | {"context_tokens": 128000, "max_output_tokens": 4096}, id="a/b"),
        model(fake(FREE) | {"provider": "acme"}, id="free", markup="0.5"),
        markup="0.05",
    )
    async with running(redis_url, given) as gateway:
        for path in ("/v1/models", "/api/v1/models"):
            for headers in (
                {},
                {"Authorization": f"Bearer {gateway.key}"},
                {"Authorization": "no"},
            ):
                reply = await gateway.client.get(path, headers=headers)
                assert reply.status_code == 200
        document: dict[str, Any] = reply.json()
        assert (document["total_count"], document["links"]) == (2, {"next": None})
        first, second = document["data"]
        assert first["pricing"] == {
            "prompt": "0.0000001575",
            "completion": "0.00000063",
            "request": "0.00105",
            "image": "0",
            "input_cache_read": "0.00000007875",
        }
        required = {"id", "canonical_slug", "name", "created", "context_length", "architecture"}
        required |= {"pricing", "top_provider", "per_request_limits", "supported_parameters"}
        required |= {"default_parameters", "supported_voices", "links"}
        for entry in document["data"]:
            assert required <= set(entry)
            assert entry["links"]["details"]
            for amount in entry["pricing"].values():
                assert Decimal(amount) >= 0
                assert -Decimal(amount).as_tuple().exponent <= 12  # type: ignore[operator]
        assert (first["context_length"], first["top_provider"]["max_completion_tokens"]) == (
            128000,
            4096,
        )
        assert second["owned_by"] == "acme"
        assert set(second["pricing"].values()) == {"0"}
        assert "tools" not in first["supported_parameters"]
        assert "temperature" in first["supported_parameters"]


IDLE = """
import asyncio, sys
from gateway.config import parse
from gateway.app import create_app
from gateway.wiring import WorkerConfig
from gateway import server
import socket

document = {"models": [{"id": "m", "endpoints": [
    {"backend": "fake", "price": {"prompt": 0, "completion": 1}},
    {"backend": "openai", "base_url": "http://x/v1", "model": "m",
     "price": {"prompt": 0, "completion": 1}}]}]}
settings = parse(document, "test")
listener = socket.create_server(("127.0.0.1", 0))
config = WorkerConfig(settings, None, sys.argv[1], b"p" * 32, {})
http = server.build(create_app(config), settings.server)

async def main():
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    while not http.started:
        await asyncio.sleep(0.01)
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    heavy = [name for name in ("torch", "transformers", "tiktoken") if name in sys.modules]
    print(int(status["VmRSS"].split()[0]), heavy)
    http.should_exit = True
    await serving

asyncio.run(main())
"""


def test_an_idle_worker_is_light(valkey: ValkeyServer) -> None:
    """Started, with both kinds of backend: under 120 MB, and without torch or tokenizers."""
    command = [sys.executable, "-c", IDLE, valkey.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    kilobytes, _, heavy = done.stdout.strip().partition(" ")
    assert heavy == "[]"
    assert int(kilobytes) < 120_000


def test_metrics_of_several_engines_are_one_exposition() -> None:
    """Each family is described once, and its samples stand together."""
    one = '# HELP a What a is\n# TYPE a gauge\na{model_name="x"} 1\n'
    one += "# HELP b B\n# TYPE b gauge\nb 1\n"
    two = one.replace('"x"} 1', '"y"} 2')
    assert merged([one, two]) == (
        "# HELP a What a is\n# TYPE a gauge\n"
        'a{model_name="x"} 1\na{model_name="y"} 2\n'
        "# HELP b B\n# TYPE b gauge\nb 1\nb 1\n"
    )
    assert merged([one]) == one
