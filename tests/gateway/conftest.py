"""What the worker's tests share."""

from __future__ import annotations

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
