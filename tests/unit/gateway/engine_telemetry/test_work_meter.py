"""Work that reaches an engine, and its cost."""

import pytest

from gateway.engine_telemetry.work_meter import MEMORY_S, WorkMeter
from gateway.routing.cost_model import PRIOR_PREFILL_S
from tests.unit.conftest import Clock

TOKEN_S = 0.002


def test_cost_per_token_is_learned_from_consecutive_prompts(clock: Clock) -> None:
    """The slope is found without the fixed cost of a step."""
    meter = WorkMeter(clock)
    assert meter.prefill_s == PRIOR_PREFILL_S
    for number in range(40):
        tokens = 100 + 40 * (number % 7)
        meter.record_prefill(tokens, 10.0 * number, 10.0 * number + 0.01 + TOKEN_S * tokens)

    assert meter.prefill_s == pytest.approx(TOKEN_S, rel=0.1)


def test_overlapping_prompts_share_the_time(clock: Clock) -> None:
    """Ten prompts computed together take as long as one ten times as long."""
    meter = WorkMeter(clock)
    for number in range(40):
        tokens, began_s = 20 + 10 * (number % 5), 10.0 * number
        for _ in range(10):
            meter.record_prefill(tokens, began_s, began_s + 0.01 + TOKEN_S * 10 * tokens)

    assert meter.prefill_s == pytest.approx(TOKEN_S, rel=0.1)


def test_an_engine_that_is_never_idle_is_measured(clock: Clock) -> None:
    """Each prompt starts before the previous one ends."""
    meter, now_s = WorkMeter(clock), 0.0
    for number in range(200):
        tokens = 100 + 40 * (number % 7)
        end_s = now_s + TOKEN_S * tokens
        meter.record_prefill(tokens, max(0.0, now_s - 0.1), end_s)
        now_s = end_s

    assert meter.prefill_s == pytest.approx(TOKEN_S, rel=0.15)


def test_arriving_work_is_a_rate_that_decays(clock: Clock) -> None:
    """A thousand tokens arrive every second, at the assumed cost per token; then none."""
    meter = WorkMeter(clock)
    for _ in range(100):
        clock.now_s += 1
        meter.record_arrival(1000)
    steady = meter.arriving
    clock.now_s += 5 * MEMORY_S

    assert steady == pytest.approx(1000 * PRIOR_PREFILL_S, rel=0.05)
    assert meter.arriving < 0.01 * steady


def test_service_time_is_a_mean_that_favours_recent_requests(clock: Clock) -> None:
    """It is unknown before the first request."""
    meter = WorkMeter(clock)
    before = meter.service_s
    for seconds in [2.0] * 100 + [4.0] * 100:
        meter.record_service_time(seconds)

    assert before == 0
    assert meter.service_s == pytest.approx(4, rel=0.01)
