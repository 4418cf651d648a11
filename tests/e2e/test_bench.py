"""``tollway bench`` against a real server with scripted models."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.served import TOLLWAY, Served

pytestmark = pytest.mark.anyio


def model(name: str, **script: Any) -> dict[str, Any]:
    """A scripted model that costs nothing but its words."""
    price = {"prompt": "0", "completion": "1"}
    return {"id": name, "endpoints": [{"backend": "fake", "script": script, "price": price}]}


DOCUMENT = {
    "models": [
        model("demo/fake", tokens=7),
        model("demo/slow", tokens=5, token_ms=600),
        model("demo/broken", tokens=5, fail={"how": "cut", "after_tokens": 3}),
    ]
}


def bench(*words: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as people do."""
    env = {name: value for name, value in os.environ.items() if name != "TOLLWAY_API_KEY"}
    env |= {} if key is None else {"TOLLWAY_API_KEY": key}
    return subprocess.run(
        [*TOLLWAY, "bench", *words], capture_output=True, text=True, timeout=60, env=env
    )


async def test_a_users_gateway_is_measured(
    served: Callable[[dict[str, Any] | None], Served],
) -> None:
    """Streams and whole answers, by URL and by data folder, with the server's CPU; all charged."""
    server = served(DOCUMENT)
    await server.start()
    key = server.key("acme", "--credit", "1")
    where = ("--url", f"{server.url}/v1", "--model", "demo/fake")
    pid = str(server.pids()["supervisor"])
    done = bench(*where, "--requests", "12", "--pid", pid, "--json", key=key)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["requests"], found["failed"], found["errors"]) == (12, 0, [])
    assert found["cpu_us_per_request"] > 0
    assert found["chunks_per_second"] / found["requests_per_second"] == pytest.approx(7, rel=0.01)
    assert found["first_content_ms"]["p50"] <= found["total_ms"]["p50"]
    here = ("--data", str(server.data), "--model", "demo/fake", "--requests", "5", "--whole")
    done = bench(*here, key=key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("5 whole answers of demo/fake in ")
    assert "first content" not in done.stdout
    settled = [line for line in server.journal("acme") if line["type"] == "S"]
    assert len(settled) == 17


async def test_it_says_how_far_it_is_when_it_takes_long(
    served: Callable[[dict[str, Any] | None], Served],
) -> None:
    """On standard error, so that JSON stays JSON."""
    server = served(DOCUMENT)
    await server.start()
    words = ("--url", f"{server.url}/v1", "--model", "demo/slow", "--requests", "2", "--json")
    done = bench(*words, key=server.key("acme", "--credit", "1"))
    assert done.stderr.startswith("0 of 2 answered, 0 failed\n")
    assert json.loads(done.stdout)["requests"] == 2


async def test_what_fails_is_counted_with_its_words_and_what_to_do(
    served: Callable[[dict[str, Any] | None], Served],
) -> None:
    """A wrong key, a model that is not there, no credit, a broken answer, a wrong base URL."""
    server = served(DOCUMENT)
    await server.start()
    key, poor = server.key("acme", "--credit", "1"), server.key("poor")
    for given, name, path, kind, advice in (
        ("tw_wrong", "demo/fake", "/v1", "401", "tollway keys create"),
        (key, "demo/none", "/v1", "400", "tollway models"),
        (key, "demo/fake", "", "404", "ends in /v1"),
        (poor, "demo/fake", "/v1", "402", "tollway credits grant"),
        (key, "demo/broken", "/v1", "broken off", "log"),
    ):
        words = ("--url", server.url + path, "--model", name, "--requests", "3")
        done = bench(*words, "--json", key=given)
        assert done.returncode == 1, (kind, done.stdout)
        found = json.loads(done.stdout)
        assert found["failed"] == 3
        (error,) = found["errors"]
        assert (error["kind"], error["count"]) == (kind, 3)
        assert error["message"]
        assert given not in done.stdout
        plain = bench(*words, key=given)
        assert plain.returncode == 1
        assert f"3 x {kind}: {error['message'][:40]}" in plain.stdout
        assert advice in plain.stdout.splitlines()[-1]


def test_what_cannot_begin_says_what_to_do(tmp_path: Path) -> None:
    """No key, no server, a URL that is none, a process that is none: one line, exit 1."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    nobody = ("--url", f"http://127.0.0.1:{port}/v1")
    for key, words, said in (
        (None, nobody, "tollway keys create"),
        ("two\nlines", nobody, "line break"),
        ("k", nobody, "tollway serve"),
        ("k", (*nobody, "--pid", str(2**22 + 1)), "no such process"),
        ("k", ("--url", "127.0.0.1:8080"), "http://127.0.0.1:8080/v1"),
        ("k", ("--url", "http://h/v1\r\nx: y"), "http://127.0.0.1:8080/v1"),
        ("k", ("--data", str(tmp_path / "none")), "--url"),
    ):
        done = bench("--model", "m", *words, key=key)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
