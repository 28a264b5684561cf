"""DecayingMean: a mean that follows its latest observations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.decaying_mean import DecayingMean

OBSERVATIONS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.1, 10)), min_size=1, max_size=30)


@given(OBSERVATIONS, st.floats(0.1, 1))
def test_earlier_observations_weigh_less_by_the_decay(
    observations: list[tuple[float, float]], decay: float
) -> None:
    """The mean equals the sums over all observations, weighted by powers of the decay."""
    mean = DecayingMean(decay)
    for total, weight in observations:
        mean.observe(total, weight)

    powers = [decay**age for age in range(len(observations))][::-1]
    totals = sum(p * total for p, (total, _) in zip(powers, observations, strict=True))
    weights = sum(p * weight for p, (_, weight) in zip(powers, observations, strict=True))
    assert mean.value == pytest.approx(totals / weights)


def test_the_mean_is_zero_without_observations() -> None:
    """There is no division by a weight of zero."""
    assert DecayingMean(0.9).value == 0.0


def test_a_prior_counts_until_it_is_forgotten() -> None:
    """The mean starts at the prior and ends at the observations."""
    mean = DecayingMean(0.9, total=50.0, weight=5.0)
    assert mean.value == 10.0
    for _ in range(200):
        mean.observe(3.0)
    assert mean.value == pytest.approx(3.0)
