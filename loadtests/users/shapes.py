"""How many users there are as time goes by."""

import math
from collections.abc import Callable, Mapping

LEAST_SHARE = 0.2
"""Of the peak: how many there are before and after it."""


def _steady(_: float) -> float:
    return 1.0


def _ramp(part: float) -> float:
    """Up in three quarters of the time, then as many."""
    return min(1.0, part / 0.75)


def _spike(part: float) -> float:
    """The peak all at once, for a fifth of the time."""
    return 1.0 if 0.4 <= part < 0.6 else LEAST_SHARE


def _diurnal(part: float) -> float:
    """A day from midnight to midnight."""
    return LEAST_SHARE + (1 - LEAST_SHARE) * (1 - math.cos(2 * math.pi * part)) / 2


SHAPES: Mapping[str, Callable[[float], float]] = {
    "steady": _steady,
    "ramp": _ramp,
    "spike": _spike,
    "diurnal": _diurnal,
}
"""The share of the peak at each part of the time, both from 0 to 1."""


def users_at(shape: str, at_s: float, length_s: float, peak: int) -> int | None:
    """Users at a time of a test, at least one; none once it is over."""
    if at_s >= length_s:
        return None
    return max(1, round(peak * SHAPES[shape](at_s / length_s)))
