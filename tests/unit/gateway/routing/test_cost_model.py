"""What is learned of engines from the requests they finish."""

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.cost_model import CostModel
from gateway.telemetry import Finished

PREFILL_S = 1e-4
SEQUENCE_S = 2e-4
STEP_S = 0.012


def random_numbers() -> random.Random:
    """Always the same ones."""
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
    """A request as an engine reports it."""
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
    """Factors around 1: 10 % of noise, and now and then twenty times as much."""
    while True:
        yield 20.0 if numbers.random() < outliers else numbers.gauss(1, 0.1)


@pytest.mark.parametrize("most_new", [6000, 1000, 801])
def test_a_slow_engines_figures_are_known_within_50_requests(most_new: int) -> None:
    """Four times slower than the prior, with prompts that vary much, little, and not at all."""
    latency, numbers = CostModel(), random_numbers()
    noise = noises(numbers, 0.03)
    for _ in range(50):
        new, running = numbers.randrange(800, most_new), numbers.uniform(1, 60)
        latency.learn(
            finished(
                prompt_tokens=new + 512,
                cached_tokens=512,
                prefill_s=4 * (STEP_S + PREFILL_S * new) * next(noise),
                decode_s=99 * 4 * (STEP_S + SEQUENCE_S * running) * next(noise),
                running=running,
            )
        )
    estimates = latency.estimates
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
def test_any_report_leaves_usable_figures(reports: list[Finished]) -> None:
    """Costs are made of them: they are finite and none is negative."""
    latency = CostModel()
    for report in reports:
        latency.learn(report)
    estimates = latency.estimates
    positive = (estimates.prefill_s, estimates.sequence_s, estimates.tokens_per_byte)
    assert all(0 < figure < math.inf for figure in positive)
    assert estimates.step_s >= 0
    assert estimates.output_tokens >= 0


def test_text_density_and_length_of_answers_are_learned() -> None:
    """A language of two bytes a token, and answers of 40 tokens."""
    latency = CostModel()
    for _ in range(200):
        latency.learn(finished(prompt_tokens=2000, prompt_bytes=4000, completion_tokens=40))
    assert latency.estimates.tokens_per_byte == pytest.approx(0.5, rel=0.1)
    assert latency.estimates.output_tokens == pytest.approx(40, rel=0.1)
    assert latency.output_tokens(None) == latency.estimates.output_tokens
    assert latency.output_tokens(7) == 7


@pytest.mark.parametrize(
    "report",
    [
        finished(prompt_tokens=0, prompt_bytes=0, completion_tokens=0),
        finished(prompt_bytes=0, cached_tokens=1000, completion_tokens=1, is_aborted=True),
        finished(prompt_bytes=0, prefill_s=0, decode_s=0, completion_tokens=9, is_aborted=True),
    ],
)
def test_what_is_not_known_is_not_learned(report: Finished) -> None:
    """Token ids have no density, cached prompts no prefill, aborted answers no length."""
    latency = CostModel()
    before = latency.estimates
    latency.learn(report)
    assert latency.estimates == before
