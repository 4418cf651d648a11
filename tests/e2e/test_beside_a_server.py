"""Commands that run beside a server: they see its ledger, and it sees theirs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.served import TOLLWAY, Served, tollway

DOCUMENT: dict[str, Any] = {
    "models": [
        {
            "id": "demo/fake",
            "endpoints": [
                {
                    "backend": "fake",
                    "script": {"text": "the answer is 42"},
                    "price": {"prompt": "0", "completion": "1"},
                }
            ],
        }
    ],
}

pytestmark = pytest.mark.anyio


def chat(server: Served, key: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``tollway chat``."""
    return subprocess.run(
        [*TOLLWAY, "chat", *words, "--data", str(server.data)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TOLLWAY_API_KEY": key},
    )


def serve_again(server: Served) -> subprocess.CompletedProcess[str]:
    """Try to start a second server on the same data folder."""
    return subprocess.run(
        [*TOLLWAY, "serve", "--data", str(server.data), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_a_key_made_beside_the_server_works_at_once(
    served: Callable[[dict[str, Any] | None], Served],
) -> None:
    """Make a key, chat with it, see the charge, revoke it, and be refused."""
    server = served(DOCUMENT)
    await server.start()
    made = tollway("keys", "create", "--account", "acme", "--credit", "1", data=server.data)
    assert chat(server, made["key"], "demo/fake", "what is it?").stdout == "the answer is 42\n"
    assert (
        '"content": "the answer is 42"'
        in chat(server, made["key"], "demo/fake", "what is it?", "--json").stdout
    )
    assert server.credits("acme")["spent_nanodollars"] == 2 * 4 * 1000
    wrong = chat(server, made["key"], "demo/fak", "hi")
    assert wrong.returncode == 1
    assert "demo/fake" in wrong.stderr
    second = serve_again(server)
    assert second.returncode == 1
    assert str(server.pids()["supervisor"]) in second.stderr
    assert await server.stop() == 0
