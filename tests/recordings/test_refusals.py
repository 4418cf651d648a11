"""Error answers of real servers become the right error, with the vendor's words."""

from __future__ import annotations

import pytest

from tests.recordings.cases import ABSENT, Case, recorded, refusals
from tests.recordings.refusals import mistakes

CASES = [pytest.param(case, id=case.name) for case in refusals()]
if not recorded():
    CASES.append(pytest.param(None, id="recordings", marks=pytest.mark.skip(ABSENT)))


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_becomes_the_right_error(case: Case) -> None:
    """Its class, the vendor's sentence, the status, and how long to wait."""
    assert mistakes(case) == []
