"""One exposition for all workers, whichever is asked: prometheus_client's multi-process mode.

Each worker keeps its values in files of a common folder, which ``PROMETHEUS_MULTIPROC_DIR``
names, and the one that is asked adds up the files of all. The files go by the workers' names,
not by process ids: a restarted worker goes on with its counters, and a worker that is restarted
for ever leaves no files behind. Written against prometheus_client 0.26.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector


def prepare(folder: Path) -> None:
    """Make the folder, or empty it: what an earlier run counted is over."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)


def share(worker: str) -> None:
    """Keep the values of every metric that is made from now on in this worker's files."""
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


def forget(worker: str, folder: Path) -> None:
    """Take out a dead worker's gauges of the moment; what it counted stays."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


class AllWorkers(Collector):
    """The metrics of one worker with the values of all of them."""

    def __init__(self, own: CollectorRegistry, folder: Path) -> None:
        """``own`` has the metrics that are shown, also those which no worker has used yet."""
        self._own = own
        self._folder = str(folder)

    def collect(self) -> Iterator[Metric]:
        """Add up the files as they are now."""
        everyone = MultiProcessCollector(None, self._folder)  # type: ignore[no-untyped-call]
        shared: dict[str, Metric] = {m.name: m for m in everyone.collect()}  # type: ignore[no-untyped-call]
        for metric in self._own.collect():
            found = shared.get(metric.name)
            # What nobody has set yet is in no file, or there without a value.
            yield found if found is not None and found.samples else metric
