"""A real worker on a real socket with a real Valkey, inside the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import openai

from gateway import config as configuration
from gateway import server
from gateway.app import create_routes, outermost
from gateway.clock import Times
from gateway.settings import Settings
from gateway.wiring import WorkerConfig
from gateway.worker import Worker
from policies import pricing
from policies.ledger.base import Balance, JournalLine, Limits
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from policies.ledger.keys import KeyRequest, KeyStore

PEPPER = b"a pepper for tests only, 32 byte"
PROMPT_TOKENS = 6
MESSAGES = ({"role": "user", "content": "twenty-four bytes of it."},)
"""What is asked where a test does not care: so many tokens by our own count."""
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
    short = {"retry_base_ms": 1, "retry_cap_ms": 5, "drain_seconds": 5}
    short["shed_lag_ms"] = 3_600_000  # a test's clock jumps, which is no overload
    document["server"] = short | document.get("server", {})
    return configuration.parse(document, "test")


async def until(condition: Callable[[], Any], *, bound_s: float = 10.0) -> Any:
    """Wait until a condition (a function or a coroutine function) holds, and return its value."""
    async with asyncio.timeout(bound_s):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.005)


@dataclass(slots=True)
class Clock:
    """A clock that only moves when told to."""

    at_s: float = 1_000.0
    times: Times = field(init=False)

    def __post_init__(self) -> None:
        """Make the worker's view of it."""
        self.times = Times(lambda: self.at_s, lambda: round(self.at_s * 1e6))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at_s += seconds


@dataclass(slots=True)
class Gateway:
    """A running worker and the tools to look at it."""

    port: int
    client: httpx.AsyncClient
    ledger: Ledger
    keys: KeyStore
    server: Any
    worker: Worker
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
        body.setdefault("messages", list(MESSAGES))
        return await self.client.post(
            "/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {key or self.key}"},
        )

    async def stream(self, key: str | None = None, /, **body: Any) -> Streamed:
        """Post a streamed chat request and read it to its end."""
        answer = await self.chat(key, stream=True, **body)
        return Streamed(answer, read_events(answer.content))

    def request(self, key: str | None = None, /, *, close: bool = True, **body: Any) -> bytes:
        """Return a chat request as the bytes that a client puts on the wire."""
        body.setdefault("model", "demo/fake")
        body.setdefault("messages", list(MESSAGES))
        content = json.dumps(body).encode()
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "Host: gateway",
            f"Authorization: Bearer {key or self.key}",
            f"Content-Length: {len(content)}",
            f"Connection: {'close' if close else 'keep-alive'}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + content

    async def connect(self) -> Wire:
        """Open a connection of one's own."""
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    async def exchange(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own and return all that comes back."""
        wire = await self.connect()
        try:
            wire.writer.write(request)
            return await wire.reader.read()
        finally:
            await wire.close()

    def openai(self, key: str | None = None, prefix: str = "/v1") -> openai.AsyncOpenAI:
        """OpenAI's own client, which never retries; use it with ``async with``."""
        return openai.AsyncOpenAI(
            base_url=self.base_url + prefix, api_key=key or self.key, max_retries=0
        )

    async def audited(self, account: str = "acct") -> Balance:
        """Return the balance once no hold is open, after an audit of the whole ledger."""
        balance = await self.settled(account)
        report = await self.ledger.verify()
        assert report.ok, report.problems
        return balance

    async def generation(self, generation_id: str, key: str | None = None) -> dict[str, Any]:
        """Return a generation record as its account sees it, once it is there."""
        headers = {"Authorization": f"Bearer {key or self.key}"}

        async def found() -> httpx.Response | None:
            query = {"id": generation_id}
            answer = await self.client.get("/v1/generation", params=query, headers=headers)
            return answer if answer.status_code == 200 else None

        data: dict[str, Any] = (await until(found)).json()["data"]
        return data

    async def metric(self, line: str) -> float:
        """Return the value of one line of ``/metrics``; 0 if it is not there."""
        text = (await self.client.get("/metrics")).text
        values = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line + " ")]
        return float(values[0]) if values else 0.0

    async def settled(self, account: str = "acct") -> Balance:
        """Return the balance once no hold is open."""

        async def closed() -> Balance | None:
            balance = await self.ledger.balance(account)
            assert balance is not None
            return None if balance.held_nanodollars or balance.open_holds else balance

        balance: Balance = await until(closed)
        return balance

    async def journal(self, kind: str = "S", account: str = "acct") -> Sequence[JournalLine]:
        """Return the journal lines of one type."""
        return [line for line in await self.ledger.journal_tail(account) if line.type == kind]


@dataclass(slots=True)
class Wire:
    """A client's bare connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read_until(self, text: bytes) -> bytes:
        """Read up to and including ``text``."""
        return await self.reader.readuntil(text)

    async def close(self) -> None:
        """Close it, whatever is still to come."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def status_of(reply: bytes) -> int:
    """Return the status of an answer's bytes."""
    return int(reply.split(b" ", 2)[1])


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
    redis_url: str,
    given: Settings,
    *,
    usd: str = "1",
    times: Times | None = None,
    tokenizer: str = "",
) -> AsyncIterator[Gateway]:
    """Start a worker, wait until it serves, stop it at the end."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setblocking(False)
    port = listener.getsockname()[1]
    routes = create_routes(
        WorkerConfig(given, None, redis_url, PEPPER, {}, tokenizer=tokenizer), times
    )
    http = server.build(outermost(routes, given.server), given.server)
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    redis = connect(redis_url)
    ledger, keys = Ledger(redis), KeyStore(redis, PEPPER)
    limits = httpx.Limits(max_connections=2000)
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits, trust_env=False
    )
    try:
        await until(lambda: http.started or serving.done())
        assert not serving.done(), serving.result()
        gateway = Gateway(port, client, ledger, keys, http, routes.state.worker)
        gateway.key = await gateway.fund(usd)
        yield gateway
    finally:
        await client.aclose()
        http.should_exit = True
        await serving
        await ledger.aclose()
        await keys.aclose()
        await redis.aclose()
