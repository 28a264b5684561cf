"""Days and months of UTC, in which money is counted."""

from datetime import UTC, datetime, timedelta
from typing import Literal

Interval = Literal["day", "month"]
DAY_S = 86_400


def period_start_s(interval: Interval, now_s: float) -> int:
    """When the day or month began, in Unix time."""
    if interval == "day":
        return int(now_s) // DAY_S * DAY_S
    now = datetime.fromtimestamp(now_s, UTC)
    return int(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp())


def period_end_s(interval: Interval, now_s: float) -> int:
    """When the day or month ends, in Unix time."""
    start_s = period_start_s(interval, now_s)
    if interval == "day":
        return start_s + DAY_S
    after = datetime.fromtimestamp(start_s, UTC) + timedelta(days=32)
    return period_start_s("month", after.timestamp())
