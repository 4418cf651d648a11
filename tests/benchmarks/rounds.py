"""One round: every gateway in every cell, one after another on one core, each answer checked."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.bench import cost
from gateway.bench.load import Plan
from tests.benchmarks.gateways import OTHER_CORE, ROOT, SHAPES, Running

DIRECT = "direct"
"""The upstream asked without a gateway: what there would be to wait for anyway."""

EVERYWHERE = ("tollway", "nginx", "tensorzero", DIRECT)
"""Who is measured in every cell; the others only where prompts are small and connections few."""

HALF_LOAD = ("tollway", "nginx", "tensorzero", "vllm-router")
"""Who is asked at half of its throughput; at a few requests a second a p99 says nothing."""

HELD_STREAMS = {"litellm": 32}
HELD_STREAMS_ELSE = 500
HALF_LOAD_CONNECTIONS = 64
HALF_LOAD_TIMES = 2
"""How many times longer than a cell it lasts: a p99 needs some hundred requests."""

STEP_MS = (35.0, 50.0)
"""Where a first content comes that waited for a delayed acknowledgement (40 ms on Linux)."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the matrix."""

    shape: str
    prompt_bytes: int
    connections: int

    @property
    def name(self) -> str:
        """How results name it."""
        return f"{self.shape} {self.prompt_bytes // 1000} KB {self.connections}"


SMALL, LARGE = 1_000, 100_000
QUICK = tuple(Cell(shape, SMALL, 16) for shape in SHAPES)
FULL = tuple(
    Cell(shape, size, connections)
    for shape in SHAPES
    for size in (SMALL, LARGE)
    for connections in (16, 500)
)
BASE = Cell("burst", SMALL, 16)
"""Whose throughput is halved for the first-token times."""


class Loader:
    """The load's process."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        """Takes a started ``gateway.bench.load``."""
        self._child = child

    def ask(self, plan: Plan, meanwhile: Callable[[], object] | None = None) -> dict[str, Any]:
        """Run a plan; ``meanwhile`` is called often until the result is there."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(msgspec.json.encode(plan) + b"\n")
        self._child.stdin.flush()
        while meanwhile and not select.select([self._child.stdout], [], [], 0.02)[0]:
            meanwhile()
        line = self._child.stdout.readline()
        if not line:
            raise SystemExit(f"the load ended in {plan.url} {plan.model}")
        result: dict[str, Any] = json.loads(line)
        return result


@contextmanager
def loader() -> Iterator[Loader]:
    """Start the load's process on its core."""
    child = subprocess.Popen(
        ["taskset", "-c", str(OTHER_CORE), sys.executable, "-m", "gateway.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        yield Loader(child)
        assert child.stdin is not None
        child.stdin.close()


def plan_for(gateway: Running, cell: Cell, seconds: float, **more: Any) -> Plan:
    """Return what to ask a gateway in a cell."""
    return Plan(
        url=gateway.url,
        model=gateway.prefix + cell.shape,
        key=gateway.key,
        stream=cell.shape != "whole",
        connections=more.pop("connections", cell.connections),
        prompt_bytes=cell.prompt_bytes,
        seconds=seconds,
        **more,
    )


def measure(load: Loader, gateway: Running, cell: Cell, seconds: float) -> dict[str, Any]:
    """Ask in a closed loop; return CPU per request and chunk, throughput and latencies."""
    before, stored = cost.cpu_s(gateway.pids), cost.cpu_s(gateway.store)
    result = load.ask(plan_for(gateway, cell, seconds))
    used, stored = cost.cpu_s(gateway.pids) - before, cost.cpu_s(gateway.store) - stored
    if result["wrong"] or not result["requests"]:
        return {"failed": f"{result['wrong']}: {result['said']}"}
    return {
        "requests": result["requests"],
        "cpu_us": used / result["requests"] * 1e6,
        "chunk_us": used / result["pieces"] * 1e6,
        "store_us": stored / result["requests"] * 1e6,
        "per_second": result["requests"] / result["seconds"],
        "busy": used / result["seconds"],
        "first_ms": result["first_ms"],
        "total_ms": result["total_ms"],
    }


def at_half_load(
    load: Loader, gateway: Running, direct: Running, most: float, seconds: float
) -> dict[str, Any]:
    """Ask in an open loop at half of a gateway's throughput, and the upstream at the same rate.

    Once with TCP_NODELAY and once with Nagle's algorithm on, acknowledgements as the system likes.
    """
    found: dict[str, Any] = {"per_second": most / 2}
    more = {"per_second": most / 2, "connections": HALF_LOAD_CONNECTIONS, "firsts": True}
    plain = load.ask(plan_for(direct, BASE, seconds, **more))
    for name, nagle in (("nodelay", False), ("nagle", True)):
        result = load.ask(plan_for(gateway, BASE, seconds, nagle=nagle, **more))
        if result["wrong"] or plain["wrong"]:
            return {"failed": f"{result['wrong']}: {result['said']}"}
        low, high = (plain["first_ms"]["p50"] + step for step in STEP_MS)
        firsts = result["firsts_ms"]
        found[name] = {
            "requests": result["requests"],
            "first_ms": result["first_ms"],
            "added_p50_ms": result["first_ms"]["p50"] - plain["first_ms"]["p50"],
            "added_p99_ms": result["first_ms"]["p99"] - plain["first_ms"]["p99"],
            "step_share": sum(low <= one <= high for one in firsts) / len(firsts),
        }
    return found


def one_round(
    load: Loader, running: list[Running], cells: tuple[Cell, ...], seconds: float
) -> dict[str, Any]:
    """Measure each gateway in each cell once, then each at half of what it could carry."""
    figures: dict[str, Any] = {"cells": {}, "half": {}}
    by_name = {gateway.name: gateway for gateway in running}
    for cell in cells:
        found = {
            gateway.name: measure(load, gateway, cell, seconds)
            for gateway in running
            if cell in QUICK or gateway.name in EVERYWHERE
        }
        figures["cells"][cell.name] = found
        words = (f"{name} {one.get('cpu_us', 0):.0f} us" for name, one in found.items())
        say(f"  {cell.name}: " + ", ".join(words))
        for name, one in found.items():
            if "failed" in one:
                say(f"  {name} FAILED: {one['failed']}")
    for name, one in figures["cells"][BASE.name].items():
        if name in HALF_LOAD and "failed" not in one:
            half = at_half_load(
                load, by_name[name], by_name[DIRECT], one["per_second"], HALF_LOAD_TIMES * seconds
            )
            figures["half"][name] = half
            if "failed" not in half:
                say(
                    f"  {name} at {half['per_second']:.0f}/s adds "
                    f"{half['nodelay']['added_p50_ms']:.2f} ms (p50), "
                    f"{half['nodelay']['added_p99_ms']:.2f} ms (p99) to the first content"
                )
    return figures


def open_streams(load: Loader, gateway: Running) -> dict[str, Any]:
    """Return what memory a gateway takes more while many slow streams are open."""
    count = HELD_STREAMS.get(gateway.name, HELD_STREAMS_ELSE)
    before = cost.rss_bytes(gateway.pids)
    most = [before]
    result = load.ask(
        plan_for(gateway, Cell("held", SMALL, count), 0.0, requests=count),
        lambda: most.append(cost.rss_bytes(gateway.pids)),
    )
    if result["wrong"]:
        return {"failed": f"{result['wrong']}: {result['said']}"}
    opened = result["most_open"]
    return {"streams": opened, "per_stream_bytes": (max(most) - before) / max(opened, 1)}


def say(text: str) -> None:
    """Tell how far it has come."""
    print(text, file=sys.stderr, flush=True)
