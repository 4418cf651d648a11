"""From rounds to figures: medians, paired ratios, aims, and tables for people. Pure.

A ratio is ours over a rival's in the same round; reported is the median over rounds. Only these
count; microseconds are for orientation, for they change with the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

OURS = "tollway"
DIRECT = "direct"
Rounds = list[dict[str, Any]]

RATIOS = (
    ("whole 1 KB 16", "tensorzero", 1.6),
    ("whole 1 KB 16", "litellm", 1 / 30),
    ("burst 1 KB 16", "tensorzero", 0.7),
    ("burst 1 KB 16", "litellm", 1 / 60),
    ("paced 1 KB 16", "tensorzero", 1.0),
    ("paced 1 KB 16", "litellm", 1 / 20),
    ("paced 1 KB 16", "nginx", 3.5),
)
"""Cell, rival, and the most that our CPU per request may be of the rival's."""

FIRST_TOKEN_RIVAL, FIRST_TOKEN_MORE_MS = "vllm-router", 1.5
MOST_STEP_SHARE = 0.001
LEDGER_RATIO = 1.4
ROUNDS_THAT_COUNT = 5


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim and what was measured for it; ``met`` is None where nothing was."""

    aim: str
    figure: str
    met: bool | None


def values(rounds: Rounds, cell: str, name: str, *path: str) -> list[float]:
    """Return one figure of a gateway in every round, or nothing if it failed in one."""
    found = []
    for one in rounds:
        value: Any = one["cells"].get(cell, {}).get(name, {})
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            return []
        found.append(float(value))
    return found


def ratio(rounds: Rounds, cell: str, rival: str) -> float | None:
    """Return the median over rounds of our CPU per request divided by a rival's."""
    ours = values(rounds, cell, OURS, "cpu_us")
    theirs = values(rounds, cell, rival, "cpu_us")
    if not ours or not theirs:
        return None
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def added(rounds: Rounds, cell: str, name: str, at: str) -> float | None:
    """Return the median over rounds of first content through a gateway minus without it, in ms."""
    through = values(rounds, cell, name, "first_ms", at)
    without = values(rounds, cell, DIRECT, "first_ms", at)
    if not through or not without:
        return None
    return statistics.median(a - b for a, b in zip(through, without, strict=True))


def names_in(rounds: Rounds) -> list[str]:
    """Return the gateways in their order."""
    found: dict[str, None] = {}
    for cell in rounds[0]["cells"].values():
        found |= dict.fromkeys(cell)
    return [name for name in found if name != DIRECT]


def summary(rounds: Rounds) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the medians of every cell and gateway."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for cell in rounds[0]["cells"]:
        for name in (*names_in(rounds), DIRECT):
            if name not in rounds[0]["cells"][cell]:
                continue
            one: dict[str, float | None] = {}
            for figure in ("cpu_us", "chunk_us", "store_us", "per_second", "busy"):
                every = values(rounds, cell, name, figure)
                one[figure] = statistics.median(every) if every else None
            one["ours_to_it"] = ratio(rounds, cell, name) if name != DIRECT else None
            one["added_p50_ms"] = added(rounds, cell, name, "p50")
            one["added_p99_ms"] = added(rounds, cell, name, "p99")
            found.setdefault(cell, {})[name] = one
    return found


def half_load(rounds: Rounds, name: str, client: str, figure: str) -> list[float]:
    """Return a figure at half load in every round in which it could be measured."""
    every = (one["half"].get(name, {}).get(client, {}).get(figure) for one in rounds)
    return [value for value in every if value is not None]


def aims(rounds: Rounds, ledger: list[dict[str, float]]) -> list[Aim]:
    """Compare what was measured with every aim."""
    found = [_ratio_aim(rounds, *one) for one in RATIOS]
    ours = half_load(rounds, OURS, "nodelay", "added_p99_ms")
    theirs = half_load(rounds, FIRST_TOKEN_RIVAL, "nodelay", "added_p99_ms")
    text = (
        f"first token at half load, p99 added, best round: at most {FIRST_TOKEN_RIVAL}'s "
        f"+ {FIRST_TOKEN_MORE_MS} ms"
    )
    if ours and theirs:
        figure = f"{min(ours):.2f} ms; {FIRST_TOKEN_RIVAL} {min(theirs):.2f} ms"
        found.append(Aim(text, figure, min(ours) <= min(theirs) + FIRST_TOKEN_MORE_MS))
    else:
        found.append(Aim(text, f"{min(ours):.2f} ms" if ours else "not measured", None))
    steps = {c: half_load(rounds, OURS, c, "step_share") for c in ("nodelay", "nagle")}
    text = "no step near 40 ms with any client (share of first tokens 35 to 50 ms late)"
    if all(steps.values()):
        figure = ", ".join(f"{client} {max(every):.2%}" for client, every in steps.items())
        # A stall of the machine is not a step: a step is there in every round.
        met = all(statistics.median(every) <= MOST_STEP_SHARE for every in steps.values())
        found.append(Aim(text, f"worst round: {figure}", met))
    else:
        found.append(Aim(text, "not measured", None))
    text = f"reserve + settle: at most {LEDGER_RATIO} x two pipelined redis-py calls"
    if ledger:
        middle = statistics.median(one["ours_us"] / one["theirs_us"] for one in ledger)
        ours_us = statistics.median(one["ours_us"] for one in ledger)
        found.append(Aim(text, f"{middle:.2f} x ({ours_us:.0f} us)", middle <= LEDGER_RATIO))
    else:
        found.append(Aim(text, "not measured", None))
    return found


def _ratio_aim(rounds: Rounds, cell: str, rival: str, most: float) -> Aim:
    shape = cell.partition(" ")[0]
    bound = f"{most:g} x" if most >= 0.1 else f"1/{1 / most:.0f} of"
    text = f"{shape}: CPU per request at most {bound} {rival}"
    found = ratio(rounds, cell, rival)
    if found is None:
        return Aim(text, "not measured", None)
    figure = f"{found:.2f} x" if most >= 0.1 else f"1/{1 / found:.1f}"
    return Aim(text, figure, found <= most)


def markdown(results: dict[str, Any]) -> str:
    """Return everything as tables, from what the JSON file holds."""
    figures, names = results["summary"], names_in(results["rounds"])
    parts = [
        _heading(results),
        "CPU per request, microseconds (ours as a ratio of it); all processes of a gateway, "
        "without a database",
        table(_head(names), _rows(figures, names, _cpu)),
        "CPU per chunk of content, microseconds",
        table(_head(names), _rows(figures, names, _number("chunk_us"), streams=True)),
        "Requests per second, closed loop (share of the core in use: well below 100 % the load, "
        "not the gateway, was the limit)",
        table(_head(names), _rows(figures, names, _throughput)),
        "First content, added to the upstream's own in a closed loop: p50 / p99, ms",
        table(_head(names), _rows(figures, names, _first, streams=True)),
        "First content at half of each gateway's own throughput (open loop, burst, 1 KB): median "
        "of the rounds, best p99, and the share that came 35 to 50 ms late",
        table(_HALF_HEAD, _half_rows(results["rounds"], names)),
        "Memory: all processes idle; per open stream; CPU of the database beside a whole answer",
        table(("gateway", "idle", "per open stream", "database"), _memory_rows(results, names)),
        "Aims",
        aims_table(Aim(**one) for one in results["aims"]),
    ]
    return "\n\n".join(parts) + "\n"


def aims_table(found: Iterable[Aim]) -> str:
    """Return the aims with their figures."""
    words = {True: "yes", False: "NO", None: "?"}
    return table(("aim", "figure", "met"), [[a.aim, a.figure, words[a.met]] for a in found])


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    first = list(head)
    lines = [first, ["---"] * len(first), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_HALF_HEAD = ("gateway", "requests/s", "added p50", "added p99", "best p99", "late", "late, Nagle")


def _heading(results: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in results["versions"].items())
    machine = results["machine"]
    changed = " with changes" if results["dirty"] else ""
    return (
        f"Measured {results['date']} at commit {results['commit'][:12]}{changed}, "
        f"{len(results['rounds'])} rounds, {machine['processor']}, {machine['cpus']} cores, one of "
        f"them for the gateway. {versions}."
    )


def _head(names: list[str]) -> list[str]:
    return ["shape, prompt, connections", *names]


def _rows(
    figures: dict[str, Any], names: list[str], words: Any, streams: bool = False
) -> list[list[str]]:
    cells = [cell for cell in figures if not (streams and cell.startswith("whole"))]
    return [[c, *(words(figures[c][n]) if n in figures[c] else "" for n in names)] for c in cells]


def _cpu(one: dict[str, float | None]) -> str:
    if one["cpu_us"] is None:
        return "fails"
    theirs = one["ours_to_it"]
    beside = "" if theirs is None or theirs == 1.0 else f" ({theirs:.2g} x)"
    return f"{one['cpu_us']:,.0f}{beside}"


def _number(figure: str) -> Any:
    return lambda one: "fails" if one[figure] is None else f"{one[figure]:,.1f}"


def _throughput(one: dict[str, float | None]) -> str:
    if one["per_second"] is None or one["busy"] is None:
        return "fails"
    return f"{one['per_second']:,.0f} ({one['busy']:.0%})"


def _first(one: dict[str, float | None]) -> str:
    if one["added_p50_ms"] is None or one["added_p99_ms"] is None:
        return "fails"
    return f"{one['added_p50_ms']:.1f} / {one['added_p99_ms']:.1f}"


def _half_rows(rounds: Rounds, names: list[str]) -> list[list[str]]:
    rows = []
    for name in names:
        p50 = half_load(rounds, name, "nodelay", "added_p50_ms")
        p99 = half_load(rounds, name, "nodelay", "added_p99_ms")
        if not p50 or not p99:
            continue
        rate = [r["half"][name]["per_second"] for r in rounds if "nodelay" in r["half"][name]]
        late = [max(half_load(rounds, name, c, "step_share")) for c in ("nodelay", "nagle")]
        row = [name, f"{statistics.median(rate):,.0f}"]
        row += [f"{ms:.2f} ms" for ms in (statistics.median(p50), statistics.median(p99), min(p99))]
        rows.append(row + [f"{share:.2%}" for share in late])
    return rows


def _memory_rows(results: dict[str, Any], names: list[str]) -> list[list[str]]:
    rows = []
    for name in names:
        one = results["memory"][name]
        held = one["open"]
        per_stream = (
            "fails"
            if "failed" in held
            else f"{held['per_stream_bytes'] / 1e3:.0f} KB ({held['streams']} open)"
        )
        store = results["summary"]["whole 1 KB 16"][name]["store_us"]
        idle = f"{one['idle_bytes'] / 1e6:.0f} MB ({one['processes']} processes)"
        rows.append([name, idle, per_stream, f"{store:,.0f} us" if store else "none"])
    return rows
