"""The stall limit: when an engine that makes no progress is given up."""

import pytest

from gateway.serving.stall_limit import LONG_STEPS, MAX_FACTOR, MIN_STALL_S, StallLimit


@pytest.mark.parametrize(
    ("step_s", "limit_s"), [(0.0, MIN_STALL_S), (1.0, MIN_STALL_S), (10.0, 10 * LONG_STEPS)]
)
def test_the_limit_is_some_long_steps_but_at_least_a_minimum(step_s: float, limit_s: float) -> None:
    """An engine is stuck when it stalls longer than that."""
    limit = StallLimit()
    assert not limit.is_exceeded(limit_s, step_s)
    assert limit.is_exceeded(limit_s + 0.1, step_s)


def test_the_limit_doubles_up_to_a_maximum_and_can_be_reset() -> None:
    """Each engine that is given up doubles it, until the model's speed is known."""
    limit = StallLimit()
    was_extended = limit.is_extended
    limit.extend()
    doubled = limit.is_exceeded(2 * MIN_STALL_S, 0.0), limit.is_exceeded(2 * MIN_STALL_S + 1, 0.0)
    for _ in range(20):
        limit.extend()
    is_bounded = limit.is_exceeded(MAX_FACTOR * MIN_STALL_S + 1, 0.0)
    limit.reset()

    assert not was_extended
    assert doubled == (False, True)
    assert is_bounded
    assert not limit.is_extended
    assert limit.is_exceeded(MIN_STALL_S + 1, 0.0)
