"""The gateways that are measured: how each is started in front of the bench's upstream.

Each is a process (tree) of its own, told to use one core. Rivals are installed by `make rivals` and
`make bench-rivals` into environments of their own under ``.bench/``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gateway.bench import cost

ROOT = Path(__file__).resolve().parents[2]
RIVALS = ROOT / ".bench"
SHAPES = ("whole", "burst", "paced")
MODELS = (*SHAPES, "held")
"""What every gateway is told to serve; the upstream answers by the name."""

GATEWAY_CORE, OTHER_CORE = 0, 1
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that serves."""

    name: str
    url: str
    prefix: str
    """What stands before the shape in its model names."""

    key: str
    pids: list[int]
    """Its processes, without a database that it uses."""

    store: list[int] = field(default_factory=list)
    """The database's processes."""


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], key: str = "") -> None:
    """Wait until a URL answers with any status below 500."""
    end = time.monotonic() + START_S
    while True:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        try:
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
            with urllib.request.urlopen(request, timeout=2):
                return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
        except OSError:
            pass
        assert time.monotonic() < end, f"{url} does not answer"
        time.sleep(0.05)


@contextmanager
def process(
    *words: str, folder: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with its output in a file; end it at the end."""
    with (folder / f"{Path(words[0]).name}.log").open("ab") as log:
        child = subprocess.Popen(
            words, stdout=log, stderr=log, cwd=folder, env={**os.environ, **(env or {})}
        )
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(15)
        if child.poll() is None:
            child.kill()
            child.wait()


@contextmanager
def tollway(upstream: str, folder: Path) -> Iterator[Running]:
    """Ours, with everything on: keys, limits, ledger on real Valkey, three endpoints, journal."""
    port = free_port()
    endpoint = {
        "backend": "openai",
        "base_url": f"{upstream}/v1",
        "price": {"prompt": "1", "completion": "2"},
    }
    models = [
        {
            "id": f"bench/{shape}",
            "endpoints": [{**endpoint, "provider": f"p{n}", "model": shape} for n in range(3)],
        }
        for shape in MODELS
    ]
    config = folder / "tollway.yaml"
    limits = {"rpm": 10_000_000, "tpm": 2_000_000_000, "concurrency": 100_000}
    config.write_text(yaml.safe_dump({"models": models, "accounts": {"bench": limits}}))
    command = (sys.executable, "-m", "gateway")
    where = ("--config", str(config), "--data", str(folder / "data"))
    account = ("--account", "bench", "--credit", "1000000", "--json")
    made = subprocess.run(
        [*command, "keys", "create", *account, *where],
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    key = str(json.loads(made.stdout)["key"])
    with process(
        *command, "serve", "--port", str(port), *where, folder=folder, env={"PYTHONPATH": str(ROOT)}
    ) as child:
        wait_for(f"http://127.0.0.1:{port}/health/ready", child)
        everything = cost.tree(child.pid)
        store = [pid for pid in everything if "valkey" in _name(pid)]
        pids = [pid for pid in everything if pid not in store]
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        yield Running("tollway", url, "bench/", key, pids, store)


@contextmanager
def nginx(upstream: str, folder: Path) -> Iterator[Running]:
    """A plain proxy: the floor."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/e.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  client_body_buffer_size 256k; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream u {{ server {upstream.removeprefix("http://")}; keepalive 1024; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; client_max_body_size 50m; keepalive_requests 1000000;
    }}
  }}
}}
"""
    )
    with process("/usr/sbin/nginx", "-c", str(config), folder=folder) as child:
        wait_for(f"http://127.0.0.1:{port}/nothing", child)
        yield Running(
            "nginx", f"http://127.0.0.1:{port}/v1/chat/completions", "", "", cost.tree(child.pid)
        )


_TENSORZERO = """
import sys, openai, tensorzero
client = tensorzero.patch_openai_client(
    openai.OpenAI(api_key="none"), config_file=sys.argv[1], async_setup=False)
print(client.base_url, flush=True)
sys.stdin.read()
"""


@contextmanager
def tensorzero(upstream: str, folder: Path) -> Iterator[Running]:
    """The Rust gateway, embedded as its Python package starts it; observability off."""
    config = folder / "tz.toml"
    lines = ["[gateway]", "observability.enabled = false"]
    for shape in MODELS:
        lines += [
            f"[models.{shape}]",
            'routing = ["up"]',
            f"[models.{shape}.providers.up]",
            'type = "openai"',
            f'api_base = "{upstream}/v1"',
            f'model_name = "{shape}"',
            'api_key_location = "none"',
        ]
    config.write_text("\n".join(lines))
    python = RIVALS / "tensorzero/bin/python"
    with (folder / "tz.log").open("wb") as log:
        child = subprocess.Popen(
            [str(python), "-c", _TENSORZERO, str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        lines_said = (line.decode().strip() for line in child.stdout)
        base = next(line for line in lines_said if line.startswith("http")).rstrip("/")
        prefix = "tensorzero::model_name::"
        yield Running("tensorzero", f"{base}/chat/completions", prefix, "", cost.tree(child.pid))
    finally:
        child.stdin.close()
        child.stdout.close()
        child.kill()
        child.wait()


@contextmanager
def vllm_router(upstream: str, folder: Path) -> Iterator[Running]:
    """The Rust router: passes bytes through."""
    port, metrics = free_port(), free_port()
    with process(
        *(str(RIVALS / "vllm-router/bin/vllm-router"), "--host", "127.0.0.1"),
        *("--port", str(port), "--worker-urls", upstream, "--policy", "round_robin"),
        *("--prometheus-port", str(metrics)),
        folder=folder,
    ) as child:
        wait_for(f"http://127.0.0.1:{port}/liveness", child)
        yield Running(
            "vllm-router",
            f"http://127.0.0.1:{port}/v1/chat/completions",
            "",
            "",
            cost.tree(child.pid),
        )


@contextmanager
def litellm(upstream: str, folder: Path) -> Iterator[Running]:
    """LiteLLM's proxy: one worker, a master key, nothing else."""
    port = free_port()
    config = folder / "litellm.yaml"
    params = {"api_base": f"{upstream}/v1", "api_key": "none"}
    models = [
        {"model_name": shape, "litellm_params": {"model": f"openai/{shape}", **params}}
        for shape in MODELS
    ]
    key = "sk-bench"
    config.write_text(
        yaml.safe_dump({"model_list": models, "general_settings": {"master_key": key}})
    )
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    with process(
        *(str(RIVALS / "litellm/bin/litellm"), "--config", str(config), "--host", "127.0.0.1"),
        *("--port", str(port), "--num_workers", "1"),
        folder=folder,
        env=env,
    ) as child:
        wait_for(f"http://127.0.0.1:{port}/v1/models", child, key)
        yield Running(
            "litellm", f"http://127.0.0.1:{port}/v1/chat/completions", "", key, cost.tree(child.pid)
        )


def pin(pids: list[int], core: int) -> None:
    """Keep processes, with all their threads, on one core."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


def version(name: str) -> str:
    """Return a gateway's version as it says it, or as its own environment has it installed."""
    if name == "nginx":
        asked = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True)
        return asked.stderr.strip().rpartition("/")[2]
    package = {"tollway": sys.executable}.get(name, str(RIVALS / name / "bin/python"))
    code = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    asked = subprocess.run([package, "-c", code], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text()


Starter = Callable[[str, Path], contextlib.AbstractContextManager[Running]]
GATEWAYS: dict[str, Starter] = {
    "tollway": tollway,
    "nginx": nginx,
    "tensorzero": tensorzero,
    "vllm-router": vllm_router,
    "litellm": litellm,
}
