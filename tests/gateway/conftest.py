"""What the worker's tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.valkey_server import ValkeyServer


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Async tests run on the event loop that a worker runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A server of the test's own, to kill, freeze and restart."""
    server = ValkeyServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real tokenizer process; its socket."""
    path = tmp_path_factory.mktemp("t") / "s"
    with subprocess.Popen([sys.executable, "-m", "gateway.tokenizer", str(path)]) as child:
        try:
            yield str(path)
        finally:
            child.terminate()
