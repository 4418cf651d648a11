"""Many streams at once, each remembering what it was given."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(slots=True)
class Heard:
    """What one client got of its stream."""

    tokens: int = 0
    finished: bool = False
    error: dict[str, Any] | None = None
    broken: bool = False
    usage: dict[str, Any] | None = None


class Crowd:
    """Clients that stream from one server in tasks of their own."""

    def __init__(self, url: str, key: str, model: str) -> None:
        """Prepare; nothing connects yet."""
        self._url, self._key, self._model = url, key, model
        self.heard: list[Heard] = []
        self._tasks: list[asyncio.Task[None]] = []

    def join(self, clients: int, **body: Any) -> None:
        """Start so many streams."""
        for _ in range(clients):
            heard = Heard()
            self.heard.append(heard)
            self._tasks.append(asyncio.create_task(self._stream(heard, body)))

    async def all_heard(self, tokens: int) -> None:
        """Wait until every stream has had so many tokens."""
        while min(heard.tokens for heard in self.heard) < tokens:
            for task in self._tasks:
                assert not task.done() or task.exception() is None, task
            await asyncio.sleep(0.01)

    async def finish(self) -> list[Heard]:
        """Wait until every stream is over."""
        await asyncio.gather(*self._tasks)
        return self.heard

    async def _stream(self, heard: Heard, more: dict[str, Any]) -> None:
        body = {
            "model": self._model,
            "stream": True,
            "messages": [{"role": "user", "content": "a"}],
        }
        headers = {"Authorization": f"Bearer {self._key}"}
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:
            try:
                async with client.stream(
                    "POST", f"{self._url}/v1/chat/completions", json=body | more, headers=headers
                ) as answer:
                    assert answer.status_code == 200, await answer.aread()
                    async for line in answer.aiter_lines():
                        self._line(heard, line)
            except httpx.TransportError:
                heard.broken = True

    def _line(self, heard: Heard, line: str) -> None:
        if line == "data: [DONE]":
            heard.finished = True
        elif line.startswith("data: "):
            chunk = json.loads(line.removeprefix("data: "))
            heard.error = chunk.get("error", heard.error)
            heard.usage = chunk.get("usage", heard.usage)
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                heard.tokens += 1
