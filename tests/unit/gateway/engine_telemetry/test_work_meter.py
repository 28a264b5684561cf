"""How much work an engine gets, and what it takes it."""

import pytest

from gateway.engine_telemetry.work_meter import MEMORY_S, WorkMeter
from gateway.routing.cost_model import PRIOR_PREFILL_S
from tests.unit.conftest import Clock

TOKEN_S = 0.002


def test_what_a_token_takes_is_learned_from_prompts_one_by_one(clock: Clock) -> None:
    """Its slope, without what every step costs."""
    meter = WorkMeter(clock)
    assert meter.prefill_s == PRIOR_PREFILL_S
    for number in range(40):
        tokens = 100 + 40 * (number % 7)
        meter.prefill(tokens, 10.0 * number, 10.0 * number + 0.01 + TOKEN_S * tokens)

    assert meter.prefill_s == pytest.approx(TOKEN_S, rel=0.1)


def test_prompts_that_share_their_time_share_its_cost(clock: Clock) -> None:
    """Ten that are read together take as long as one of ten times the length."""
    meter = WorkMeter(clock)
    for number in range(40):
        tokens, began_s = 20 + 10 * (number % 5), 10.0 * number
        for _ in range(10):
            meter.prefill(tokens, began_s, began_s + 0.01 + TOKEN_S * 10 * tokens)

    assert meter.prefill_s == pytest.approx(TOKEN_S, rel=0.1)


def test_an_engine_that_never_rests_is_measured_too(clock: Clock) -> None:
    """Each prompt waits for the one before it, and begins while that one ends."""
    meter, now_s = WorkMeter(clock), 0.0
    for number in range(200):
        tokens = 100 + 40 * (number % 7)
        end_s = now_s + TOKEN_S * tokens
        meter.prefill(tokens, max(0.0, now_s - 0.1), end_s)
        now_s = end_s

    assert meter.prefill_s == pytest.approx(TOKEN_S, rel=0.15)


def test_what_arrives_is_told_in_seconds_a_second(clock: Clock) -> None:
    """A thousand tokens every second, at what a token is thought to take; then nothing more."""
    meter = WorkMeter(clock)
    for _ in range(100):
        clock.now_s += 1
        meter.arrive(1000)
    steady = meter.arriving
    clock.now_s += 5 * MEMORY_S

    assert steady == pytest.approx(1000 * PRIOR_PREFILL_S, rel=0.05)
    assert meter.arriving < 0.01 * steady


def test_how_long_requests_take_is_their_mean(clock: Clock) -> None:
    """Not known before the first; the latest count most."""
    meter = WorkMeter(clock)
    before = meter.service_s
    for seconds in [2.0] * 100 + [4.0] * 100:
        meter.serve(seconds)

    assert before == 0
    assert meter.service_s == pytest.approx(4, rel=0.01)
