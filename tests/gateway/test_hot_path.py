"""The guard of the hot path: what a request costs is in a table, and the table is kept."""

from __future__ import annotations

import pytest

from tests.gateway import hot_path
from tests.gateway.hot_path import CALLS, COUNTS, MINOR, Tally

SHAPES = ("whole", "stream", "chunk", "burst")
RENEW = "if that is meant: python -m tests.gateway.hot_path --write"
WITHIN = 0.01


@pytest.fixture(scope="module")
def measured() -> dict[str, Tally]:
    """What each shape costs now."""
    return hot_path.measure()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_wakes_writes_and_commands_as_often_as_the_table_says(
    measured: dict[str, Tally], shape: str
) -> None:
    """Wake-ups, socket writes by peer and Redis commands: exactly."""
    found = {name: measured[shape][name] for name in COUNTS}
    assert found == hot_path.read()[shape], RENEW


@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_makes_as_many_python_calls_as_the_table_says(
    measured: dict[str, Tally], shape: str
) -> None:
    """Within one percent, for the Pythons that the table knows."""
    known = hot_path.read()[CALLS]
    if MINOR not in known:
        pytest.skip(f"the table has {', '.join(known)}, not {MINOR}: renew it on that Python")
    expected = known[MINOR][shape]
    assert measured[shape][CALLS] == pytest.approx(expected, rel=WITHIN), RENEW
