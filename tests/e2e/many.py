"""A server for many clients: its configuration, its upstream and its clients as processes."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from tests.e2e.clients_process import KEY_VARIABLE
from tests.gateway.upstreams import openai_endpoint

PRICE_NANODOLLARS = 1000
"""One USD per million completion tokens; the prompt costs nothing."""

READ_S = 120.0


class Child:
    """A Python module of the tests, run as a process that says lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Take a running process."""
        self._process = process
        assert process.stdout is not None
        assert process.stdin is not None
        self._out: IO[str] = process.stdout
        self._in: IO[str] = process.stdin

    async def line(self) -> str:
        """Return the next line that it prints."""
        async with asyncio.timeout(READ_S):
            line = await asyncio.to_thread(self._out.readline)
        assert line, f"it ended with {self._process.wait(10)}"
        return line.strip()

    def go_on(self) -> None:
        """Give it a line."""
        self._in.write("\n")
        self._in.flush()

    async def leave(self) -> None:
        """End its input and wait for it."""
        self._in.close()
        assert await asyncio.to_thread(self._process.wait, 30) == 0


@contextmanager
def child(module: str, *words: str, key: str = "") -> Iterator[Child]:
    """Run ``python -m module`` while the block runs."""
    command = [sys.executable, "-m", module, *words]
    pipe = subprocess.PIPE
    env = {**os.environ, KEY_VARIABLE: key}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def clock(port: int) -> dict[str, Any]:
    """A model whose upstream tells the time, once all are there."""
    return _model(port, "clock", timeouts={"stall_ms": 120_000, "total_ms": 600_000})


def flood(port: int) -> dict[str, Any]:
    """A model whose upstream says more than anybody reads."""
    return _model(port, "flood")


def _model(port: int, name: str, **more: Any) -> dict[str, Any]:
    price = {"prompt": "0", "completion": "1"}
    endpoint = openai_endpoint(port, "up", model=name, price=price, **more)
    return {"id": name, "endpoints": [endpoint]}


def need_files(count: int) -> None:
    """Allow each process so many open files, or skip."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"{count} open files are needed and {hard} allowed: raise `ulimit -Hn`")
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
