"""Figures are computed right from rounds that are given; nothing is measured here."""

from __future__ import annotations

import pytest

from tests.benchmarks import plot, report
from tests.benchmarks.report import Rounds

CELL = "burst 1 KB 16"
TIMES = {"p50": 2.0, "p99": 5.0}


def figures(cpu_us: float, first_ms: dict[str, float] | None = None) -> dict[str, object]:
    """What was measured of one gateway in one cell."""
    return {
        "cpu_us": cpu_us,
        "chunk_us": cpu_us / 64,
        "store_us": 0.0,
        "per_second": 1e6 / cpu_us if cpu_us else 0.0,
        "busy": 1.0,
        "first_ms": first_ms or TIMES,
    }


def half(p99: float, nagle_share: float = 0.0) -> dict[str, object]:
    """What was measured of one gateway at half load."""
    one = {"added_p50_ms": 0.5, "added_p99_ms": p99, "step_share": 0.0}
    return {"per_second": 100.0, "nodelay": one, "nagle": {**one, "step_share": nagle_share}}


def rounds(*pairs: tuple[float, float]) -> Rounds:
    """Rounds with our CPU and a rival's, in the cells that the aims look at."""
    cells = ("whole 1 KB 16", CELL, "paced 1 KB 16")
    return [
        {
            "cells": {
                cell: {
                    "tollway": figures(ours, {"p50": 3.0, "p99": 9.0}),
                    "tensorzero": figures(theirs),
                    "direct": figures(0.0, {"p50": 1.0, "p99": 2.0}),
                }
                for cell in cells
            },
            "half": {"tollway": half(3.0), "vllm-router": half(2.0)},
        }
        for ours, theirs in pairs
    ]


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    """Not the ratio of the medians: a slow moment hits both of a pair."""
    given = rounds((10.0, 10.0), (40.0, 20.0), (30.0, 5.0))
    assert report.ratio(given, CELL, "tensorzero") == 2.0
    assert report.ratio(given, CELL, "litellm") is None
    found = report.summary(given)[CELL]["tensorzero"]
    assert found["cpu_us"] == 10.0
    assert found["ours_to_it"] == 2.0


def test_added_time_is_what_the_same_round_took_without_a_gateway() -> None:
    """Percentile by percentile."""
    given = rounds((10.0, 10.0))
    assert report.added(given, CELL, "tollway", "p50") == 2.0
    assert report.added(given, CELL, "tollway", "p99") == 7.0
    assert report.added(given, CELL, "nginx", "p99") is None


def test_who_failed_once_has_no_figure() -> None:
    """A gateway that gives wrong answers quickly is not a quick one."""
    given = rounds((10.0, 10.0), (10.0, 10.0))
    given[1]["cells"][CELL]["tensorzero"] = {"failed": "{'wrong words': 1}"}
    assert report.values(given, CELL, "tensorzero", "cpu_us") == []
    assert report.ratio(given, CELL, "tensorzero") is None
    assert report.summary(given)[CELL]["tensorzero"]["cpu_us"] is None


def test_aims_are_met_missed_or_not_measured() -> None:
    """A rival that did not run leaves its aims open."""
    found = report.aims(rounds((8.0, 10.0)), [{"ours_us": 60.0, "theirs_us": 50.0}])
    met = {aim.aim: aim.met for aim in found}
    assert met["whole: CPU per request at most 1.6 x tensorzero"] is True
    assert met["burst: CPU per request at most 0.7 x tensorzero"] is False
    assert met["burst: CPU per request at most 1/60 of litellm"] is None
    assert [aim.met for aim in found[-3:]] == [True, True, True]
    assert found[-1].figure == "1.20 x (60 us)"


def test_the_best_round_counts_for_the_first_token_and_every_round_for_the_step() -> None:
    """A stall of the machine is in one round; a step is in all of them."""
    given = rounds((8.0, 10.0), (8.0, 10.0), (8.0, 10.0))
    for one, p99, share in zip(given, (9.0, 3.6, 8.0), (0.02, 0.0, 0.0), strict=True):
        one["half"]["tollway"] = half(p99, share)
    first, step, ledger = report.aims(given, [])[-3:]
    assert first.met is False
    assert first.figure.startswith("3.60 ms")
    assert step.met is True
    assert ledger.met is None
    for one in given:
        one["half"]["tollway"] = half(3.4, 0.02)
    first, step, _ = report.aims(given, [])[-3:]
    assert first.met is True
    assert step.met is False


def test_the_tables_and_the_plot_show_what_is_in_the_file() -> None:
    """Every gateway with its figures, and a failure as one."""
    given = rounds((8.0, 10.0))
    given[0]["cells"][CELL]["tensorzero"] = {"failed": "{'500': 3}"}
    names = ("tollway", "tensorzero")
    open_streams = {"streams": 500, "per_stream_bytes": 20_480}
    aims = report.aims(given, [])
    results = {
        "date": "2026-11-22T20:00:00+00:00",
        "commit": "0123456789abcdef",
        "dirty": True,
        "versions": dict.fromkeys(names, "1.2.3"),
        "machine": {"cpus": 2, "processor": "a processor"},
        "rounds": given,
        "memory": {n: {"idle_bytes": 10**8, "processes": 1, "open": open_streams} for n in names},
        "summary": report.summary(given),
        "aims": [{"aim": one.aim, "figure": one.figure, "met": one.met} for one in aims],
    }
    text = report.markdown(results)
    assert "commit 0123456789ab with changes, 1 rounds" in text
    assert "| whole 1 KB 16 | 8 | 10 (0.8 x) |" in text
    assert f"| {CELL} | 8 | fails |" in text
    assert "| tollway | 100 MB (1 processes) | 20 KB (500 open) | none |" in text
    assert "| tollway | 100 | 0.50 ms | 3.00 ms | 3.00 ms | 0.00% | 0.00% |" in text
    assert plot.series(results) == {"tollway": [8.0, 8.0, 8.0], "tensorzero": [10.0, 0.0, 10.0]}
    assert plot.first_tokens(results) == {"tollway": (0.5, 3.0)}


@pytest.mark.parametrize(("most", "words"), [(1.6, "1.6 x"), (1 / 60, "1/60 of")])
def test_bounds_are_written_as_people_say_them(most: float, words: str) -> None:
    """Sixty times cheaper is no 0.0167."""
    aim = report._ratio_aim(rounds((8.0, 10.0)), CELL, "tensorzero", most)
    assert f"at most {words} tensorzero" in aim.aim
