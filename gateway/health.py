"""Whether this worker can serve: Redis answers, and each engine has been ready once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import httpx
import msgspec

from policies.ledger.base import LedgerError
from policies.ledger.client import Ledger

PROBE_S = 2.0


class Health:
    """Checks on demand; upstreams never count."""

    def __init__(
        self, ledger: Ledger, engines: Mapping[str, str], announced: Callable[[], bool]
    ) -> None:
        """``engines``: sockets by model; ``announced``: whether the supervisor lets us be ready."""
        self._ledger = ledger
        self._clients = {model: _client(socket) for model, socket in engines.items()}
        self._ready_once: set[str] = set()
        self._announced = announced

    async def checks(self) -> tuple[bool, dict[str, str]]:
        """Return whether the worker is ready, and the state of each part."""
        checks = {"redis": await self._redis()}
        for model, client in self._clients.items():
            checks[f"engine:{model}"] = await self._engine(model, client)
        ready = checks["redis"] == "ok" and self._ready_once == set(self._clients)
        if ready and not self._announced():
            # The first key is printed before anyone is told that the server is ready.
            ready = False
            checks["supervisor"] = "starting"
        return ready, checks

    async def engine_metrics(self) -> bytes:
        """Return the engines' own metrics; those that do not answer are left out."""
        texts = []
        for client in self._clients.values():
            try:
                texts.append((await client.get("/metrics")).text)
            except httpx.HTTPError:
                continue
        return merged(texts).encode()

    async def aclose(self) -> None:
        """Close the connections to the engines."""
        for client in self._clients.values():
            await client.aclose()

    async def _redis(self) -> str:
        try:
            await self._ledger.ping()
        except LedgerError as error:
            return f"unavailable: {error}"
        return "ok"

    async def _engine(self, model: str, client: httpx.AsyncClient) -> str:
        try:
            answer = await client.get("/health")
            state = str(msgspec.json.decode(answer.content).get("status", answer.status_code))
        except httpx.HTTPError:
            return "down"
        except (msgspec.DecodeError, AttributeError):
            return "unknown"
        if answer.status_code == 200:
            self._ready_once.add(model)
        return state


def merged(texts: Sequence[str]) -> str:
    """Join expositions of the same metrics: each family described once, its samples together.

    Source: Prometheus' text format, "all lines for a given metric must be provided as one
    single group" (read 2026-11).
    """
    families: dict[str, list[str]] = {}
    for text in texts:
        family = ""
        for line in text.splitlines():
            comment = line.startswith("# ")
            family = line.split(" ", 3)[2] if comment else family
            lines = families.setdefault(family, [])
            if not (comment and line in lines):
                lines.append(line)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _client(socket: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=socket),
        base_url="http://engine",
        timeout=PROBE_S,
        trust_env=False,
    )
