"""No wait that an upstream asks for is too strange or too long."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.wire.waits import MAX_WAIT_S, wait_s
from tests.wire.test_failure import refused


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": f"Mon, 01 Jan 2024 00:00:00 +{'9' * 14}"},
        {"retry_after": "soon", "date": f"Mon, 01 Jan 2024 00:00:00 -{'9' * 14}"},
    ],
)
def test_a_date_in_no_zone_is_no_date(headers: dict[str, str]) -> None:
    """The attempt goes on as if nothing had been told."""
    assert refused(429, {}, **headers).retry_after_s is None
    assert refused(429, {}, x_ratelimit_reset="7", **headers).retry_after_s == 7


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": "1e300"},
        {"retry_after": "9" * 300},
        {"retry_after": "Fri, 31 Dec 9999 23:59:59 GMT"},
        {"retry_after_ms": "1e300"},
        {"x_ratelimit_reset": "999999999999d"},
        {"x_ratelimit_reset": "9999-12-31T23:59:59-23:59"},
    ],
)
def test_no_wait_is_longer_than_a_day(headers: dict[str, str]) -> None:
    """Wherever it is told, as seconds or as a time."""
    assert refused(429, {}, **headers).retry_after_s == MAX_WAIT_S


_times = (
    st.text(max_size=30)
    | st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][0-9]{1,4})?(ms|[smhd])?", fullmatch=True)
    | st.from_regex(
        r"(Mon, )?[0-9]{1,6} ?(Jan|Dec) [0-9]{1,6} ([0-9]{1,3}:?){0,4} ?([+-][0-9]{1,20}|GMT)?",
        fullmatch=True,
    )
    | st.builds(
        str, st.datetimes(timezones=st.timezones() | st.just(timezone(timedelta(hours=-23))))
    )
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(
            ["retry-after", "retry-after-ms", "date", "x-ratelimit-reset", "x-ratelimit-remaining"]
        ),
        _times,
    ),
    _times,
)
def test_no_header_is_too_strange_to_wait(headers: dict[str, str], delay: str) -> None:
    """Nothing is raised whatever it says, there or in the body, and the bound holds."""
    details = {"message": f"try again in {delay}", "details": [{"retryDelay": delay}]}
    for error in ({"metadata": {"headers": headers}}, details):
        wait = wait_s(headers, {"error": error}, limited=True, words=f"try again in {delay}")
        assert wait is None or 0 <= wait <= MAX_WAIT_S
