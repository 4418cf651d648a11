"""Measures ours against rivals, alternating: ``python -m tests.benchmarks.compare``.

Every round measures each gateway in each cell, one after another, each gateway on one core and
everything else on another. The figures that count are medians over rounds of paired ratios.
Results go to a JSON file; tables to a Markdown file beside it and to standard output.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.bench import cost
from tests.benchmarks import report
from tests.benchmarks.gateways import (
    GATEWAY_CORE,
    GATEWAYS,
    OTHER_CORE,
    ROOT,
    Running,
    free_port,
    pin,
    process,
    version,
)
from tests.benchmarks.rounds import DIRECT, FULL, QUICK, loader, one_round, open_streams, say

SECONDS, QUICK_SECONDS, WARM_UP_SECONDS = 1.0, 0.6, 0.2
LEDGER_PAIRS = 3_200


def main() -> None:
    """Run the rounds and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateways", default="tollway,nginx,tensorzero")
    parser.add_argument("--rounds", type=int, help="5, or 2 with --quick")
    parser.add_argument("--quick", action="store_true", help="small prompts, few connections")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "results.json")
    given = parser.parse_args()
    names = given.gateways.split(",")
    unknown = set(names) - set(GATEWAYS)
    if unknown or report.OURS not in names:
        parser.error(f"--gateways: choose from {', '.join(GATEWAYS)}, ours always among them")
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("the benchmark needs two cores: one for the gateway, one for the rest")
    count = given.rounds or (2 if given.quick else report.ROUNDS_THAT_COUNT)
    results = run(names, count, given.quick)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    tables = report.markdown(results)
    given.out.with_suffix(".md").write_text(tables)
    print(tables)
    if count < report.ROUNDS_THAT_COUNT:
        say(f"{count} rounds show a direction; figures for others to trust take five")
    if any("failed" in one[report.OURS] for r in results["rounds"] for one in r["cells"].values()):
        raise SystemExit("ours gave wrong answers: see above")


def run(names: list[str], count: int, quick: bool) -> dict[str, Any]:
    """Start everything, measure it, and return what the JSON file holds."""
    cells = QUICK if quick else FULL
    seconds = QUICK_SECONDS if quick else SECONDS
    memory: dict[str, Any] = {}
    measured = origin(names)  # now: whoever changes the checkout meanwhile changes nothing here
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        upstream = start_upstream(stack, folder)
        running = []
        for name in names:
            (folder / name).mkdir()
            gateway = stack.enter_context(GATEWAYS[name](upstream, folder / name))
            running.append(gateway)
            pin(gateway.pids, GATEWAY_CORE)
            pin(gateway.store, OTHER_CORE)
            memory[name] = {
                "idle_bytes": cost.rss_bytes(gateway.pids),
                "processes": len(gateway.pids),
            }
            say(f"{name} serves, {memory[name]['idle_bytes'] / 1e6:.0f} MB")
        direct = Running(DIRECT, f"{upstream}/v1/chat/completions", "", "", [])
        load = stack.enter_context(loader())
        say("warming up")
        one_round(load, [*running, direct], QUICK, WARM_UP_SECONDS)
        # Before hundreds of connections were ever open: memory once taken is seldom given back.
        for gateway in running:
            memory[gateway.name]["open"] = open_streams(load, gateway)
        if cells != QUICK:
            one_round(load, [*running, direct], cells, WARM_UP_SECONDS)
        rounds = []
        for number in range(count):
            say(f"round {number + 1} of {count}")
            # The next round starts with another gateway: a drift of the machine hits all alike.
            order = running[number % len(running) :] + running[: number % len(running)]
            rounds.append(one_round(load, [*order, direct], cells, seconds))
    ledger = ledger_rounds(count)
    return {
        **measured,
        "rounds": rounds,
        "ledger": ledger,
        "memory": memory,
        "summary": report.summary(rounds),
        "aims": [asdict(aim) for aim in report.aims(rounds, ledger)],
    }


def start_upstream(stack: ExitStack, folder: Path) -> str:
    """Start the upstream on its core and return its URL."""
    port = free_port()
    words = (sys.executable, "-m", "gateway.bench.upstream", "--port", str(port))
    child = stack.enter_context(process(*words, folder=folder, env={"PYTHONPATH": str(ROOT)}))
    wait_for_port(port)
    pin([child.pid], OTHER_CORE)
    return f"http://127.0.0.1:{port}"


def ledger_rounds(count: int) -> list[dict[str, float]]:
    """Measure reserve and settle beside redis-py, on the gateways' core."""
    words = ["taskset", "-c", str(GATEWAY_CORE), sys.executable, "-m"]
    words += ["tests.benchmarks.ledger_cost", "--rounds", str(count), "--pairs", str(LEDGER_PAIRS)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"reserve and settle could not be measured:\n{done.stderr[-2000:]}")
        return []
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


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


def origin(names: list[str]) -> dict[str, Any]:
    """Return what was measured, where and when."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        "versions": {name: version(name) for name in names},
        "machine": {
            "cpus": os.cpu_count(),
            "processor": processor(),
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
    }


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def git(*words: str) -> str:
    """Return what git says; nothing outside a checkout."""
    done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
