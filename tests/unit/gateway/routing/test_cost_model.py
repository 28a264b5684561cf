"""Tests of the cost model: what is learned about engines from the requests they finish."""

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.cost_model import CostModel
from gateway.telemetry.update import Finished

PREFILL_S = 1e-4
SEQUENCE_S = 2e-4
STEP_S = 0.012


def random_numbers() -> random.Random:
    """Return a random generator with a fixed seed."""
    return random.Random(7)  # noqa: S311 - noise, keeps no secret


def finished(
    *,
    prompt_tokens: int = 1000,
    cached_tokens: int = 0,
    completion_tokens: int = 100,
    prompt_bytes: int = 4000,
    prefill_s: float = 0.1,
    decode_s: float = 1.0,
    running: float = 8.0,
    is_aborted: bool = False,
) -> Finished:
    """An engine's report on a finished request."""
    return Finished(
        id=1,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        prompt_bytes=prompt_bytes,
        queue_s=0,
        prefill_s=prefill_s,
        decode_s=decode_s,
        running=running,
        is_aborted=is_aborted,
    )


def noises(numbers: random.Random, outliers: float) -> Iterator[float]:
    """Yield factors around 1 with 10 % of noise, and now and then a factor of 20."""
    while True:
        yield 20.0 if numbers.random() < outliers else numbers.gauss(1, 0.1)


@pytest.mark.parametrize("most_new", [6000, 1000, 801])
def test_the_costs_of_a_slow_engine_are_learned_within_50_requests(most_new: int) -> None:
    """It is four times slower than the prior; prompts vary much, little, or not at all."""
    cost_model, numbers = CostModel(), random_numbers()
    noise = noises(numbers, 0.03)
    for _ in range(50):
        new, running = numbers.randrange(800, most_new), numbers.uniform(1, 60)
        cost_model.learn(
            finished(
                prompt_tokens=new + 512,
                cached_tokens=512,
                prefill_s=4 * (STEP_S + PREFILL_S * new) * next(noise),
                decode_s=99 * 4 * (STEP_S + SEQUENCE_S * running) * next(noise),
                running=running,
            )
        )
    estimates = cost_model.estimates
    assert estimates.prefill_s == pytest.approx(4 * PREFILL_S, rel=0.25)
    assert estimates.sequence_s == pytest.approx(4 * SEQUENCE_S, rel=0.25)
    assert estimates.step_s + 30 * estimates.sequence_s == pytest.approx(4 * 0.018, rel=0.25)


@given(
    st.lists(
        st.builds(
            finished,
            prompt_tokens=st.integers(0, 10**6),
            cached_tokens=st.integers(0, 10**6),
            completion_tokens=st.integers(0, 10**5),
            prompt_bytes=st.integers(0, 10**7),
            prefill_s=st.floats(0, 1e4),
            decode_s=st.floats(0, 1e4),
            running=st.floats(0, 1e3),
            is_aborted=st.booleans(),
        )
    )
)
def test_any_report_leaves_usable_estimates(reports: list[Finished]) -> None:
    """Costs are computed from them, so they stay finite and are never negative."""
    cost_model = CostModel()
    for report in reports:
        cost_model.learn(report)
    estimates = cost_model.estimates
    positive = (estimates.prefill_s, estimates.sequence_s, estimates.tokens_per_byte)
    assert all(0 < figure < math.inf for figure in positive)
    assert estimates.step_s >= 0
    assert estimates.output_tokens >= 0


def test_tokens_per_byte_and_answer_length_are_learned() -> None:
    """Both follow a language of two bytes a token, and answers of 40 tokens."""
    cost_model = CostModel()
    for _ in range(200):
        cost_model.learn(finished(prompt_tokens=2000, prompt_bytes=4000, completion_tokens=40))
    assert cost_model.estimates.tokens_per_byte == pytest.approx(0.5, rel=0.1)
    assert cost_model.estimates.output_tokens == pytest.approx(40, rel=0.1)
    assert cost_model.output_tokens(None) == cost_model.estimates.output_tokens
    assert cost_model.output_tokens(7) == 7


@pytest.mark.parametrize(
    "report",
    [
        finished(prompt_tokens=0, prompt_bytes=0, completion_tokens=0),
        finished(prompt_bytes=0, cached_tokens=1000, completion_tokens=1, is_aborted=True),
        finished(prompt_bytes=0, prefill_s=0, decode_s=0, completion_tokens=9, is_aborted=True),
    ],
)
def test_reports_without_a_quantity_do_not_change_its_estimate(report: Finished) -> None:
    """Token ids have no bytes, cached prompts no prefill, aborted answers no length."""
    cost_model = CostModel()
    before = cost_model.estimates
    cost_model.learn(report)
    assert cost_model.estimates == before


@pytest.mark.parametrize("prompt_bytes", [20, 1_000_000])
def test_no_single_prompt_decides_how_long_those_of_others_are(prompt_bytes: int) -> None:
    """A huge prompt of rare characters counts like others; a tiny one has a token for each byte."""
    cost_model = CostModel()
    for _ in range(50):
        cost_model.learn(finished(prompt_tokens=1000, prompt_bytes=4000))
    cost_model.learn(finished(prompt_tokens=max(60, prompt_bytes), prompt_bytes=prompt_bytes))
    assert cost_model.estimates.tokens_per_byte == pytest.approx(0.25, rel=0.2)


@pytest.mark.parametrize("new", [0, 400, 2000])
def test_what_requests_cost_adds_up_to_the_time_of_a_busy_engine(new: int) -> None:
    """Prompts that are computed in the steps of others' answers do not count twice."""
    cost_model, running, answer = CostModel(), 40, 100
    step_s = 0.012 + running * 0.0002 + running * new / answer * 0.0001
    for _ in range(300):
        cost_model.learn(
            finished(
                prompt_tokens=new,
                completion_tokens=answer,
                prefill_s=new * 0.0001 + 0.012,
                decode_s=(answer - 1) * step_s,
                running=running,
            )
        )
        cost_model.learn(finished(prompt_tokens=3000, completion_tokens=0, prefill_s=0.312))
    requests_per_s = running / (answer * step_s)
    assert requests_per_s * cost_model.cost_s(new, answer) == pytest.approx(1, rel=0.05)
