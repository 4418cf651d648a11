"""Servers that no test leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import Served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[dict[str, Any] | None], Served]]:
    """Make servers on a folder of this test's own."""
    made: list[Served] = []

    def make(document: dict[str, Any] | None) -> Served:
        made.append(Served.of(tmp_path, document))
        return made[-1]

    yield make
    for server in made:
        server.kill_everything()
