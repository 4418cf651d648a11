"""The engine as its users start it: a process, a socket, signals, an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
NAME = "local/smol"
BODY = {
    "model": NAME,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 8,
}


class Running:
    """An engine process and a client for its socket."""

    def __init__(self, weights: Path, path: Path) -> None:
        """Start it; it is loading then."""
        arguments = ["--weights", str(weights), "--name", NAME, "--socket", str(path)]
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local_engine", *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://engine", timeout=60
        )

    def wait_for_line(self, part: str) -> str:
        """Read stderr up to the line that has a certain part."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if part in line:
                return line
        raise AssertionError(f"it ended without {part!r}: {seen}")

    def wait_for_status(self, status: str) -> None:
        """Ask for health until it says so; the test's timeout bounds it."""
        while self.client.get("/health").json()["status"] != status:
            pass

    def wait_for_metric(self, line: str) -> None:
        """Ask for metrics until a line is there; the test's timeout bounds it."""
        while line not in self.client.get("/metrics").text:
            pass

    def close(self) -> None:
        """End the process if it is still there."""
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def started(weights: Path, path: Path) -> Iterator[Running]:
    """Run an engine until the block is left."""
    running = Running(weights, path)
    try:
        yield running
    finally:
        running.close()


def test_a_process_lives_from_loading_to_a_drained_end(smol_path: Path, tmp_path: Path) -> None:
    """It is up while it loads, answers, notices a client that leaves, drains, and exits with 0."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with started(smol_path, path) as engine:
        engine.wait_for_line("listening on")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        loading = engine.client.get("/health")
        assert (loading.status_code, loading.json()) == (503, {"status": "loading"})
        early = engine.client.post("/v1/chat/completions", json=BODY)
        assert (early.status_code, early.json()["error"]["code"]) == (503, "loading")
        engine.wait_for_line("is ready")
        assert engine.client.get("/health").status_code == 200
        [model] = engine.client.get("/v1/models").json()["data"]
        assert (model["id"], model["max_model_len"]) == (NAME, 8192)

        whole = engine.client.post("/v1/chat/completions", json=BODY).json()
        text = whole["choices"][0]["message"]["content"]
        assert "Paris" in text
        with engine.client.stream(
            "POST", "/v1/chat/completions", json={**BODY, "stream": True}
        ) as response:
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        chunks = [json.loads(line) for line in lines[:-1]]
        streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert (streamed, lines[-1]) == (text, "[DONE]")

        endless = {**BODY, "stream": True, "max_tokens": 4000, "temperature": 2, "seed": 1}
        with engine.client.stream("POST", "/v1/chat/completions", json=endless) as response:
            next(response.iter_lines())
        engine.wait_for_metric('finished_reason="abort"')
        engine.wait_for_metric(f'vllm:num_requests_running{{model_name="{NAME}"}} 0.0')

        bounded = {**endless, "max_tokens": 24}
        with engine.client.stream("POST", "/v1/chat/completions", json=bounded) as response:
            lines_left = response.iter_lines()
            next(lines_left)
            engine.process.send_signal(signal.SIGTERM)
            engine.wait_for_status("draining")
            refused = engine.client.post("/v1/chat/completions", json=BODY)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert "retry-after" in refused.headers
            assert [line for line in lines_left if line][-1] == "data: [DONE]"
        assert engine.process.wait(30) == 0
        assert not path.exists()


def test_a_signal_while_loading_ends_the_process_well(smol_path: Path, tmp_path: Path) -> None:
    """There is nothing to drain."""
    path = tmp_path / "engine.sock"
    with started(smol_path, path) as engine:
        engine.wait_for_line("listening on")
        engine.wait_for_status("loading")
        engine.process.send_signal(signal.SIGINT)
        assert engine.process.wait(30) == 0
        assert not path.exists()


def run_briefly(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "local_engine", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_missing_weights_end_it_with_one_line_that_helps(tmp_path: Path) -> None:
    """Before anything is loaded or bound."""
    path = tmp_path / "engine.sock"
    ended = run_briefly("--weights", str(tmp_path), "--name", "x", "--socket", str(path))
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "make setup" in line
    assert not path.exists()


def test_a_socket_that_is_in_use_is_left_alone(tiny_path: Path, tmp_path: Path) -> None:
    """The process that listens there keeps it."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        ended = run_briefly("--weights", str(tiny_path), "--name", "x", "--socket", str(path))
    assert (ended.returncode, path.exists()) == (1, True)
    assert "another process" in ended.stderr


def test_weights_that_are_no_model_end_it_with_one_line(tiny_path: Path, tmp_path: Path) -> None:
    """The socket was there for a moment, and is removed."""
    path = tmp_path / "engine.sock"
    ended = run_briefly("--weights", str(tiny_path), "--name", "x", "--socket", str(path))
    assert ended.returncode == 1
    assert "cannot load" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert not path.exists()


@pytest.fixture
def tiny_path(tmp_path: Path) -> Path:
    """A folder that looks like a model from outside, and is none."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_help_shows_every_option_and_an_example() -> None:
    """Someone who has only the command can find out the rest."""
    ended = run_briefly("--help")
    assert ended.returncode == 0
    for word in ("--weights", "--name", "--socket", "--max-running", "--max-queued", "curl"):
        assert word in ended.stdout


def test_nothing_heavy_and_nothing_of_the_gateway_is_imported_at_the_start() -> None:
    """Everything but runner, sampler and loader does without torch."""
    code = (
        "import sys, local_engine.__main__, local_engine.convert, local_engine.text\n"
        "bad = {'torch', 'transformers', 'gateway', 'backends', 'policies'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
