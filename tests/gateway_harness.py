"""A real worker on a real socket with a real Valkey, inside the test's event loop."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx

from gateway import config as configuration
from gateway import server
from gateway.app import create_app
from gateway.settings import Settings
from gateway.wiring import WorkerConfig
from policies import pricing
from policies.ledger.base import Balance, JournalLine, Limits
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from policies.ledger.keys import KeyRequest, KeyStore

PEPPER = b"a pepper for tests only, 32 byte"
FREE = {"prompt": "0", "completion": "0"}


def fake(price: dict[str, str] | None = None, /, **script: Any) -> dict[str, Any]:
    """An endpoint of the fake backend."""
    return {
        "backend": "fake",
        "price": price or {"prompt": "0", "completion": "1"},
        "script": script,
    }


def model(*endpoints: dict[str, Any], id: str = "demo/fake", **more: Any) -> dict[str, Any]:
    """A model with endpoints."""
    return {"id": id, "endpoints": list(endpoints), **more}


def settings(*models: dict[str, Any], **more: Any) -> Settings:
    """Settings for a test: short periods where the product has long ones."""
    document = {"models": list(models), **more}
    document.setdefault("server", {}).setdefault("retry_base_ms", 1)
    document["server"].setdefault("retry_cap_ms", 5)
    return configuration.parse(document, "test")


@dataclass(slots=True)
class Gateway:
    """A running worker and the tools to look at it."""

    port: int
    client: httpx.AsyncClient
    ledger: Ledger
    keys: KeyStore
    server: Any
    key: str = ""
    account: str = "acct"

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def fund(
        self,
        usd: str = "1",
        account: str = "acct",
        limits: Limits | None = None,
        **more: Any,
    ) -> str:
        """Give an account credit and return a new key of it."""
        new = await self.keys.create(KeyRequest(account, limits=limits or Limits(), **more))
        amount = pricing.nanodollars(Decimal(usd))
        if amount:
            await self.ledger.grant(new.record.key_id, account, amount)
        else:
            await self.ledger.create_account(account)
        return new.text

    async def chat(self, key: str | None = None, /, **body: Any) -> httpx.Response:
        """Post a chat request."""
        body.setdefault("model", "demo/fake")
        body.setdefault("messages", [{"role": "user", "content": "hi"}])
        return await self.client.post(
            "/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {key or self.key}"},
        )

    async def stream(self, key: str | None = None, /, **body: Any) -> Streamed:
        """Post a streamed chat request and read it to its end."""
        answer = await self.chat(key, stream=True, **body)
        return Streamed(answer, read_events(answer.content))

    async def settled(self, account: str = "acct") -> Balance:
        """Return the balance once no hold is open."""
        for _ in range(500):
            balance = await self.ledger.balance(account)
            assert balance is not None
            if balance.held_nanodollars == 0 and balance.open_holds == 0:
                return balance
            await asyncio.sleep(0.01)
        raise AssertionError(f"holds stay open: {balance}")

    async def journal(self, kind: str = "S", account: str = "acct") -> Sequence[JournalLine]:
        """Return the journal lines of one type."""
        return [line for line in await self.ledger.journal_tail(account) if line.type == kind]


@dataclass(slots=True)
class Streamed:
    """A streamed answer, read to its end."""

    answer: httpx.Response
    events: list[Any]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """Chunks without errors and end marker."""
        return [event for event in self.events if isinstance(event, dict)]

    @property
    def text(self) -> str:
        """All visible text of the first choice."""
        deltas = (c["choices"][0]["delta"] for c in self.chunks if c.get("choices"))
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """In-band errors."""
        return [chunk["error"] for chunk in self.chunks if "error" in chunk]

    @property
    def done(self) -> bool:
        """Whether the stream ended as a complete one does."""
        return bool(self.events) and self.events[-1] == "[DONE]"


def read_events(body: bytes) -> list[Any]:
    """Read the data lines of a stream."""
    lines = body.decode().split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in data]


@asynccontextmanager
async def running(
    redis_url: str, given: Settings, *, usd: str = "1", engines: dict[str, str] | None = None
) -> AsyncIterator[Gateway]:
    """Start a worker, wait until it serves, stop it at the end."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setblocking(False)
    port = listener.getsockname()[1]
    app = create_app(WorkerConfig(given, None, redis_url, PEPPER, engines or {}))
    http = server.build(app, given.server)
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    redis = connect(redis_url)
    ledger, keys = Ledger(redis), KeyStore(redis, PEPPER)
    limits = httpx.Limits(max_connections=2000)
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits, trust_env=False
    )
    try:
        while not http.started:
            assert not serving.done(), serving.result()
            await asyncio.sleep(0.01)
        gateway = Gateway(port, client, ledger, keys, http)
        gateway.key = await gateway.fund(usd)
        yield gateway
    finally:
        await client.aclose()
        http.should_exit = True
        await serving
        await ledger.aclose()
        await keys.aclose()
        await redis.aclose()
