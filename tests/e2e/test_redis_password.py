"""A Redis of the operator's own, behind a password: who can read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.bench import cost
from tests.gateway_harness import fake, model
from tests.served import Served, tollway
from tests.valkey_server import ValkeyServer

Make = Callable[[dict[str, Any] | None], Served]
PASSWORD = "correct-horse-battery"

pytestmark = pytest.mark.anyio


@pytest.fixture
def guarded_valkey() -> Iterator[ValkeyServer]:
    """A Valkey that answers nobody without the password."""
    server = ValkeyServer("--requirepass", PASSWORD)
    server.start()
    yield server
    server.remove()


def command_lines(pid: int) -> list[str]:
    """What ``ps`` shows of a process and all that descend from it."""
    raw = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in cost.tree(pid)]
    return [line.decode().replace("\0", " ") for line in raw]


async def test_no_process_of_a_server_shows_the_redis_password_on_its_command_line(
    served: Make, guarded_valkey: ValkeyServer
) -> None:
    """Any user of the machine may read command lines; the logs do not have it either."""
    url = f"unix://:{PASSWORD}@{guarded_valkey.socket_path}"
    server = served({"models": [model(fake(tokens=2))], "redis": {"url": url}})
    await server.start()  # ready: its worker has reached the ledger
    assert server.process is not None
    lines = command_lines(server.process.pid)
    assert any(" worker " in line for line in lines)
    assert not any(PASSWORD in line for line in lines)
    words = ("keys", "create", "--account", "acct", "--config", str(server.config))
    _ = tollway(*words, data=server.data)  # the password is the one that opens the ledger
    assert await server.stop() == 0
    assert PASSWORD not in server.errors
