"""Tests of days and months of UTC."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.calendar import Interval, period_end_s, period_start_s


@pytest.mark.parametrize(
    ("interval", "start", "end"),
    [
        ("day", "2028-02-29", "2028-03-01"),
        ("month", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods_begin_at_midnight_utc(interval: Interval, start: str, end: str) -> None:
    """A month ends with its last day, in leap years, too."""
    now_s = datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp()
    found = [period(interval, now_s) for period in (period_start_s, period_end_s)]
    assert [str(datetime.fromtimestamp(each, UTC).date()) for each in found] == [start, end]


@given(st.sampled_from(["day", "month"]), st.floats(0, 4e9))
def test_a_period_ends_where_the_next_one_begins(interval: Interval, now_s: float) -> None:
    """Every moment is in its period, and in no other."""
    end_s = period_end_s(interval, now_s)
    assert period_start_s(interval, now_s) <= now_s < end_s
    assert period_start_s(interval, end_s) == end_s
