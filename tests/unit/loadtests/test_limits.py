"""Limits over several routers, in virtual time: how far they are exceeded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.limits import SCENARIOS, LimitRun, LimitScenario, limits_of, worst_minute


@pytest.mark.parametrize("kind", ["requests", "tokens"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_a_limit_is_exceeded_by_no_more_than_one_frame_and_the_estimates(
    scenario: LimitScenario, kind: str
) -> None:
    """However many routers there are, and if one is killed; all of the limit can be used."""
    result = LimitRun(scenario, limits_of(kind, 300), 15.0, 120.0).run()
    assert result.excess <= result.bound
    assert result.bound < 0.2 * result.limit
    assert result.share > 0.95


def test_one_router_exceeds_no_limit_of_requests() -> None:
    """It knows of all of them."""
    result = LimitRun(SCENARIOS[0], limits_of("requests", 120), 20.0, 130.0).run()
    assert (result.worst, result.excess) == (120, 0)


@given(st.lists(st.tuples(st.floats(0, 300), st.integers(0, 9)), min_size=1).map(sorted))
def test_the_worst_minute_is_that_of_all_minutes(events: list[tuple[float, int]]) -> None:
    """Against a search through all of them."""
    sums = [
        sum(amount for at_s, amount in events[: index + 1] if at_s > end_s - 60)
        for index, (end_s, _) in enumerate(events)
    ]
    assert worst_minute(events)[0] == max(sums)
