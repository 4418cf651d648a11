"""Measures ours against rivals, alternating: ``python -m tests.benchmarks.compare``.

Every round measures each gateway in each shape, one after another, on one core; the figures
that count are medians over rounds of the paired ratios of CPU time per request.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway.bench import cost
from gateway.bench.load import KEY_VARIABLE
from tests.benchmarks.gateways import (
    GATEWAYS,
    ROOT,
    SHAPES,
    Running,
    free_port,
    process,
)

REQUESTS = {"whole": 2000, "burst": 600, "paced": 160}
SLOW = {"litellm": 20}
"""How many times fewer requests a gateway gets that needs that many times longer."""

GATEWAY_CORE, OTHER_CORE = 0, 1


def main() -> None:
    """Run the rounds and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateways", default="tollway,nginx,tensorzero")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "results.json")
    given = parser.parse_args()
    names = given.gateways.split(",")
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        port = free_port()
        upstream = f"http://127.0.0.1:{port}"
        words = (sys.executable, "-m", "gateway.bench.upstream", "--port", str(port))
        child = stack.enter_context(process(*words, folder=folder, env={"PYTHONPATH": str(ROOT)}))
        wait_for_port(port)
        pin([child.pid], OTHER_CORE)
        running = []
        for name in names:
            (folder / name).mkdir()
            running.append(stack.enter_context(GATEWAYS[name](upstream, folder / name)))
            pin(running[-1].pids, GATEWAY_CORE)
            say(f"{name} serves, {cost.rss_bytes(running[-1].pids) / 1e6:.0f} MB")
        rounds = [one_round(running, number, given) for number in range(given.rounds + 1)][1:]
    results = {"machine": machine(), "versions": versions(names), "rounds": rounds}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1))
    print(table(names, rounds))


def one_round(running: list[Running], number: int, given: argparse.Namespace) -> dict[str, Any]:
    """Measure each gateway in each shape once; round 0 only warms up."""
    figures: dict[str, Any] = {}
    for shape in SHAPES:
        for gateway in running:
            requests = max(REQUESTS[shape] // SLOW.get(gateway.name, 1), 20)
            requests = requests if number else max(requests // 10, 20)
            figures.setdefault(shape, {})[gateway.name] = measure(
                gateway, shape, requests, given.connections
            )
        say(
            f"round {number} {shape}: "
            + ", ".join(f"{name} {one['cpu_us']:.0f} us" for name, one in figures[shape].items())
        )
    return figures


def measure(gateway: Running, shape: str, requests: int, connections: int) -> dict[str, Any]:
    """Ask one gateway and return its CPU microseconds per request and its latencies."""
    words = [sys.executable, "-m", "gateway.bench.load", "--url", gateway.url]
    words += ["--model", f"{gateway.prefix}{shape}", "--requests", str(requests)]
    words += ["--connections", str(connections), *(["--stream"] if shape != "whole" else [])]
    before = cost.cpu_s(gateway.pids)
    done = subprocess.run(
        ["taskset", "-c", str(OTHER_CORE), *words],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, KEY_VARIABLE: gateway.key, "PYTHONPATH": str(ROOT)},
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if result["wrong"]:
        raise SystemExit(f"{gateway.name} {shape}: wrong answers: {result}")
    result["cpu_us"] = (cost.cpu_s(gateway.pids) - before) / requests * 1e6
    return result


def table(names: list[str], rounds: list[dict[str, Any]]) -> str:
    """Return the medians as Markdown: microseconds, and ours as a ratio of each rival's."""
    lines = ["| gateway | " + " | ".join(SHAPES) + " |", "|---|" + "---|" * len(SHAPES)]
    for name in names:
        cells = []
        for shape in SHAPES:
            own = statistics.median(r[shape][name]["cpu_us"] for r in rounds)
            ratio = statistics.median(
                r[shape]["tollway"]["cpu_us"] / r[shape][name]["cpu_us"] for r in rounds
            )
            cells.append(f"{own:,.0f} us" + (f" (ours {ratio:.2f} x)" if name != "tollway" else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pin(pids: list[int], core: int) -> None:
    """Keep processes, with all their threads, on one core."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


def wait_for_port(port: int) -> None:
    """Wait until somebody listens."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("the upstream does not start")


def machine() -> dict[str, Any]:
    """Return what this ran on."""
    return {"cpus": os.cpu_count(), "platform": platform.platform(), "python": sys.version}


def versions(names: list[str]) -> dict[str, str]:
    """Return the commit and our version."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return {
        "commit": commit.stdout.strip(),
        "tollway": importlib.metadata.version("tollway"),
        "gateways": ",".join(names),
    }


def say(text: str) -> None:
    """Tell how far it has come."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
