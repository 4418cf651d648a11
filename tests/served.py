"""The real ``tollway`` command as a process: a server started, watched, killed and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

TOLLWAY = (sys.executable, "-m", "gateway")
START_S = 90.0
STOP_S = 60.0
POLL_S = 0.02


def tollway(*words: str, data: Path, expect: int = 0, env: dict[str, str] | None = None) -> Any:
    """Run one command with ``--json`` and return what it says."""
    done = subprocess.run(
        [*TOLLWAY, *words, "--json", "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.count("\n") == 1, f"not one line: {done.stdout!r}"
    return json.loads(done.stdout)


async def until(ready: Callable[[], Any], within_s: float = START_S) -> Any:
    """Return the first true answer of ``ready``, looked at often and not for ever."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while True:
        if found := ready():
            return found
        assert loop.time() < end, "waited in vain"
        await asyncio.sleep(POLL_S)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@dataclass
class Served:
    """One ``tollway serve`` on a data folder."""

    data: Path
    config: Path | None = None
    workers: int = 1
    process: subprocess.Popen[bytes] | None = None
    seen: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, folder: Path, document: dict[str, Any] | None) -> Served:
        """Prepare a server for a configuration; None is no configuration file."""
        config = None
        if document is not None:
            config = folder / "tollway.yaml"
            config.write_text(yaml.safe_dump(document))
        return cls(folder / "data", config)

    async def start(self) -> str:
        """Start it, wait until it is ready, and return what it printed by then."""
        words = ["serve", "--port", "0", "--data", str(self.data)]
        words += ["--config", str(self.config)] if self.config else []
        words += ["--workers", str(self.workers)] if self.workers > 1 else []
        self.data.parent.mkdir(exist_ok=True)
        with self._out.open("wb") as out, self._err.open("ab") as err:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - spawning takes no time
                [*TOLLWAY, *words], stdout=out, stderr=err
            )
        await until(self._is_ready)
        self.seen |= set(self.pids().values())
        return self._out.read_text()

    @property
    def _out(self) -> Path:
        return self.data.parent / "stdout"

    @property
    def _err(self) -> Path:
        return self.data.parent / "stderr"

    @property
    def errors(self) -> str:
        """Everything logged so far."""
        return self._err.read_text()

    @property
    def url(self) -> str:
        """Where it listens."""
        found = re.search(r"http://[\w.]+:\d+", self._out.read_text())
        assert found, f"it printed no address: {self.errors[-2000:]}"
        return found[0]

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.errors[-3000:]
        return "http://" in self._out.read_text() and self.ready_now()

    def ready_now(self) -> bool:
        """Whether it says that it is ready."""
        try:
            return httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def status(self) -> dict[str, Any]:
        """What ``tollway status`` says."""
        return tollway("status", data=self.data)

    def pids(self) -> dict[str, int]:
        """Children by name, and the supervisor."""
        status = self.status()
        children = {child["name"]: child["pid"] for child in status["children"]}
        self.seen |= {status["pid"], *children.values()}
        return {"supervisor": status["pid"], **children}

    def key(self, account: str = "acct", *more: str) -> str:
        """Make a key."""
        return str(tollway("keys", "create", "--account", account, *more, data=self.data)["key"])

    def credits(self, account: str = "acct") -> dict[str, Any]:
        """What ``tollway credits show`` says."""
        return tollway("credits", "show", account, data=self.data)

    def journal(self, account: str = "acct") -> list[dict[str, Any]]:
        """An account's journal lines, up to 1,000."""
        words = ("journal", "tail", "--account", account, "--lines", "1000")
        return list(tollway(*words, data=self.data))

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and return its exit code; nothing of it may be left."""
        assert self.process is not None
        self.process.send_signal(number)
        code = await until(lambda: _code(self.process), STOP_S)
        await self.all_gone()
        return int(code[0])

    async def all_gone(self) -> None:
        """Wait until no process that was ever seen runs; a few seconds at most."""
        await until(lambda: not any(map(alive, self.seen)), 15)

    def kill_everything(self) -> None:
        """For the end of a test: leave nothing behind, whatever happened."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _code(process: subprocess.Popen[bytes] | None) -> tuple[int] | None:
    assert process is not None
    code = process.poll()
    return None if code is None else (code,)
