"""Ledgers over a real Valkey, flushed before each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from policies.ledger.base import LedgerSettings
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from tests.valkey_server import ValkeyServer, own_valkey_server, valkey_server

__all__ = ["own_valkey_server", "valkey_server"]


@pytest.fixture
def anyio_backend() -> str:
    """These tests run on asyncio."""
    return "asyncio"


@pytest.fixture
async def redis(valkey_server: ValkeyServer) -> AsyncIterator[Redis]:
    """A client of the session's server, which is empty."""
    client = connect(valkey_server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def ledger(redis: Redis) -> AsyncIterator[Ledger]:
    """A ledger with the usual settings."""
    one = Ledger(redis)
    await one.start()
    yield one
    await one.aclose()


@pytest.fixture
async def expiring_ledger(redis: Redis, ledger: Ledger) -> AsyncIterator[Ledger]:
    """A ledger over the same data whose holds are due at once."""
    one = Ledger(redis, LedgerSettings(hold_ttl_ms=0))
    yield one
    await one.aclose()
