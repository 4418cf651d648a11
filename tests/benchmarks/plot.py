"""Draws a results file: ``python -m tests.benchmarks.plot RESULTS.json PICTURE.svg``.

Needs matplotlib (`make bench-plot` has it in an environment of its own).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.benchmarks.report import DIRECT, OURS, half_load, names_in

CELLS = {
    "whole 1 KB 16": "whole answer",
    "burst 1 KB 16": "64 chunks at once",
    "paced 1 KB 16": "64 chunks, 5 ms apart",
}
OURS_COLOR, OTHER_COLORS = "#c2410c", ("#64748b", "#94a3b8", "#475569", "#cbd5e1")


def series(results: dict[str, Any]) -> dict[str, list[float]]:
    """Return CPU microseconds per request of each gateway, in the order of ``CELLS``."""
    summary = results["summary"]
    names = [name for name in names_in(results["rounds"]) if name != DIRECT]
    return {name: [summary[cell][name]["cpu_us"] or 0.0 for cell in CELLS] for name in names}


def first_tokens(results: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return each gateway's best added p50 and p99 at half load, in milliseconds."""
    found = {}
    for name in names_in(results["rounds"]):
        p50 = half_load(results["rounds"], name, "nodelay", "added_p50_ms")
        p99 = half_load(results["rounds"], name, "nodelay", "added_p99_ms")
        if p50 and p99:
            found[name] = (min(p50), min(p99))
    return found


def draw(results: dict[str, Any], file: Path) -> None:
    """Write the picture; the file's name says in which format."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tollway"  # the same results give the same bytes
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 4), width_ratios=(3, 2), layout="constrained"
    )
    bars = series(results)
    width = 0.8 / len(bars)
    colors = dict(zip((n for n in bars if n != OURS), OTHER_COLORS, strict=False))
    for number, (name, heights) in enumerate(bars.items()):
        places = [place + number * width for place in range(len(CELLS))]
        drawn = left.bar(places, heights, width, label=name, color=colors.get(name, OURS_COLOR))
        left.bar_label(drawn, fmt="{:,.0f}", fontsize=7)
    left.set_yscale("log")
    left.set_xticks([n + 0.4 - width / 2 for n in range(len(CELLS))], list(CELLS.values()))
    left.set_title("CPU per request, microseconds (log scale; less is better)", fontsize=10)
    left.legend(fontsize=8, frameon=False)
    times = first_tokens(results)
    for row, (name, (p50, p99)) in enumerate(times.items()):
        color = colors.get(name, OURS_COLOR)
        right.barh(row, p99, 0.6, color=color, alpha=0.45)
        right.barh(row, p50, 0.6, color=color)
        right.text(max(p99, 0), row, f" {p50:.2f} / {p99:.2f}", va="center", fontsize=8)
    right.set_yticks(range(len(times)), list(times))
    right.invert_yaxis()
    right.margins(x=0.2)
    right.set_title("First token at half load: added p50 / p99, ms", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    rounds = len(results["rounds"])
    where = f"{results['machine']['processor']}, {results['date'][:10]}, {rounds} rounds"
    figure.supxlabel(where, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=150)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description="Draw the results of a benchmark.")
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    draw(json.loads(given.results.read_text()), given.picture)


if __name__ == "__main__":
    main()
