"""The metrics of several workers as one page; a worker is a process of its own here, too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import config, shared_metrics

PAGE = """
import sys
from pathlib import Path
from gateway import shared_metrics
shared_metrics.share(sys.argv[1])
from gateway.telemetry import Metrics
metrics = Metrics(Path(sys.argv[2]))
exec(sys.argv[3])
sys.stdout.write(metrics.text().decode())
"""
BREAKER = 'tollway_breaker_open{model="m",provider="p"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of metrics."""
    made = tmp_path / "metrics"
    made.mkdir()
    (made / "counter_worker-9.db").write_bytes(b"what an earlier run left")
    shared_metrics.prepare(made)
    return made


def worker(name: str, folder: Path, code: str = "") -> dict[str, float]:
    """Run a worker that does something and shows its page; it is dead afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", PAGE, name, str(folder), code],
        env={**os.environ, config.METRICS_DIR: str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [row.rpartition(" ") for row in done.stdout.splitlines() if not row.startswith("#")]
    assert "pid=" not in done.stdout
    assert len(re.findall("^# TYPE tollway_", done.stdout, re.M)) == 17
    return {row: float(value) for row, _, value in rows}


def test_counters_and_histograms_add_up_also_over_restarts(folder: Path) -> None:
    """What a dead worker counted stays, and its successor goes on in the same files."""
    count = "metrics.charge('m').inc(5); metrics.overhead.observe(0.002)"
    _ = worker("worker-1", folder, count)
    files = sorted(folder.iterdir())
    _ = worker("worker-1", folder, count)
    assert sorted(folder.iterdir()) == files
    page = worker("worker-2", folder, count)
    assert page['tollway_charge_nanodollars_total{model="m"}'] == 15
    assert page["tollway_overhead_seconds_count"] == 3
    assert page['tollway_overhead_seconds_bucket{le="0.0025"}'] == 3
    assert page['tollway_overhead_seconds_bucket{le="0.001"}'] == 0


def test_gauges_are_of_the_workers_that_live(folder: Path) -> None:
    """Streams add up, the worst lag and any open breaker show; the dead have none."""
    first = "metrics.open_streams.set(3); metrics.loop_lag.set(0.7); metrics.open_holds.set(9);"
    first += "metrics.breaker_open('p', 'm').set(1)"
    second = "metrics.open_streams.set(4); metrics.loop_lag.set(0.1); metrics.open_holds.set(5);"
    second += "metrics.breaker_open('p', 'm').set(0)"
    _ = worker("worker-1", folder, first)
    page = worker("worker-2", folder, second)
    assert (page["tollway_open_streams"], page["tollway_event_loop_lag_seconds"]) == (7, 0.7)
    assert (page[BREAKER], page["tollway_ledger_open_holds"]) == (1, 5)
    shared_metrics.forget("worker-1", folder)
    page = worker("worker-2", folder, second)
    assert (page["tollway_open_streams"], page["tollway_event_loop_lag_seconds"]) == (4, 0.1)
    assert (page[BREAKER], page["tollway_ledger_open_holds"]) == (0, 5)


def test_what_nobody_has_set_is_there_all_the_same(folder: Path) -> None:
    """A page of a new server has the lines that it has with one worker."""
    page = worker("worker-1", folder)
    assert page["tollway_ledger_open_holds"] == 0
    assert page["tollway_queue_depth"] == 0


def test_children_do_not_share_metrics_with_strangers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where our own environment names a folder of metrics, it is not ours."""
    monkeypatch.setenv(config.METRICS_DIR, str(tmp_path))
    assert config.METRICS_DIR not in config.child_environment()
    assert config.metrics_dir() == tmp_path
    monkeypatch.delenv(config.METRICS_DIR)
    assert config.metrics_dir() is None
