"""Fixtures that every room of the tests may use."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import redis as redis_client

from tests.valkey_server import ValkeyServer

# The same examples in every run, and no clock: a busy machine must not fail a property.
hypothesis.settings.register_profile("tollway", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("tollway")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """One real Valkey for the session."""
    server = ValkeyServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The URL of an empty Valkey."""
    with redis_client.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url
