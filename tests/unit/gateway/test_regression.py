"""RobustLine: a line fitted to observations, with noise and outliers."""

import math
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.regression import OUTLIER, RobustLine

SLOPE = 1e-4
INTERCEPT = 0.012
POSITIVE = st.floats(1e-6, 1e6)


def random_numbers() -> random.Random:
    """Always the same numbers."""
    return random.Random(7)  # noqa: S311 - noise, keeps no secret


def noises(numbers: random.Random, outliers: float) -> Iterator[float]:
    """Factors around 1: 10 % of noise, and outliers of 20."""
    while True:
        yield 20.0 if numbers.random() < outliers else numbers.gauss(1, 0.1)


@pytest.mark.parametrize("factor", [1.0, 4.0, 0.25])
@pytest.mark.parametrize("outliers", [0.0, 0.03])
@pytest.mark.parametrize("draw", [lambda n: n.uniform(10, 8000), lambda _: 2000.0, lambda _: 50.0])
def test_a_line_is_known_within_50_observations(
    factor: float, outliers: float, draw: Callable[[random.Random], float]
) -> None:
    """It is fitted to within a quarter, with noise and outliers, even if x is constant."""
    line, numbers = RobustLine(INTERCEPT, SLOPE), random_numbers()
    noise = noises(numbers, outliers)
    xs = [draw(numbers) for _ in range(50)]
    for x in xs:
        line.observe(x, factor * (INTERCEPT + SLOPE * x) * next(noise))
    usual = sum(xs) / len(xs)
    assert line.at(usual) == pytest.approx(factor * (INTERCEPT + SLOPE * usual), rel=0.25)


def test_one_outlier_moves_little() -> None:
    """An observation of a thousand times the expected value counts like three times."""
    line, capped, numbers = RobustLine(INTERCEPT, SLOPE), RobustLine(INTERCEPT, SLOPE), [1, 2, 3]
    for x in numbers * 10:
        for each in (line, capped):
            each.observe(1000 * x, INTERCEPT + SLOPE * 1000 * x)
    before = line.at(2000)
    line.observe(2000, 1000 * before)
    capped.observe(2000, OUTLIER * before)
    assert line.at(2000) == capped.at(2000)
    assert before < line.at(2000) < 1.2 * before


@given(st.lists(st.tuples(POSITIVE | st.just(0.0), POSITIVE | st.just(0.0))))
def test_slopes_stay_positive(observations: list[tuple[float, float]]) -> None:
    """Whatever is observed, the slope stays above zero and the intercept at or above it."""
    line = RobustLine(INTERCEPT, SLOPE)
    for x, y in observations:
        line.observe(x, y)
        assert line.slope > 0
        assert line.intercept >= 0
        assert math.isfinite(line.at(1e6))
