"""Tokenizer processes as tests need them: one that has loaded, and one that refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.tokens import Tokens
from tests.gateway_harness import until

NAME = "o200k_base"


async def served(path: str) -> None:
    """Wait until the process listens, and has loaded what is counted with."""
    await until(lambda: Tokens(path, timeout_s=30).count("t", NAME, "hi"), bound_s=30)


@asynccontextmanager
async def listener(path: Path | str) -> AsyncIterator[list[int]]:
    """What grows with each question that anybody asks; nobody gets an answer."""
    asked: list[int] = []

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(1)
        writer.close()

    async with await asyncio.start_unix_server(refuse, path):
        yield asked
