"""The whole autoscaling loop: a model under load, in virtual time, over many minutes."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.contract.scaled import ScaledModel, Want, poisson


def steady(rate: float) -> Callable[[float], float]:
    """A constant rate of requests per second."""
    return lambda _: rate


def direction_changes_within_a_minute(model: ScaledModel) -> list[tuple[float, float]]:
    """Pairs of direction changes less than a minute apart."""
    turns = model.turns_s
    return [(a, b) for a, b in itertools.pairwise(turns) if b - a < 60]


@pytest.mark.parametrize("delay_s", [5, 300])
@pytest.mark.parametrize("rate", [1.9, 2.4, 4.6])
def test_a_noisy_load_near_a_boundary_does_not_flap(rate: float, delay_s: float) -> None:
    """In twenty minutes the direction changes at most once a minute, and rarely."""
    model = ScaledModel(scale_down_delay_s=delay_s)
    model.run(poisson(steady(rate), Want, seed=round(10 * rate)), 1200)

    assert not direction_changes_within_a_minute(model)
    assert len(model.turns_s) <= 4
    assert model.highest <= 4


def test_a_ramp_is_followed_up_and_down() -> None:
    """From zero to twelve requests a second and back: about five replicas, then one again."""
    model = ScaledModel(scale_down_delay_s=60)
    model.run(poisson(lambda t: 12 * max(0.0, min(t, 1200 - t) / 600), Want), 1500)

    assert 5 <= model.target_at(600) <= 7
    assert model.target_at(1500) == 1
    assert len(model.turns_s) <= 1
    assert model.rejected == 0


@pytest.mark.parametrize("start_s", [10, 60, 120])
def test_a_spike_is_met_at_once_and_not_exceeded_while_replicas_start(start_s: float) -> None:
    """Eight times the load needs four: all are asked for before the first one runs."""
    model = ScaledModel(start_s=start_s)
    model.run(poisson(lambda t: 1 if t < 100 else 8, Want), 400)

    asked = model.target_at(100 + min(start_s, 30))
    assert 3 <= asked <= 6
    assert model.highest <= 6
    assert not model.turns_s


def test_replicas_that_start_slowly_outlive_a_spike() -> None:
    """Replicas that took four minutes to start are not removed five seconds after a spike."""
    model = ScaledModel(start_s=240, scale_down_delay_s=5)
    model.run(poisson(lambda t: 8 if 100 < t < 150 else 0.5, Want), 800)

    raised_s, most = model.targets[1]
    assert most >= 3
    assert model.target_at(raised_s + 479) == most
    assert model.target_at(800) == 1


@pytest.mark.parametrize(
    ("prompt_tokens", "least", "most"), [(200, 1, 1), (4000, 2, 2), (8000, 3, 4), (16_000, 5, 8)]
)
def test_longer_prompts_at_the_same_rate_need_more_replicas(
    prompt_tokens: int, least: int, most: int
) -> None:
    """At two requests a second, the seconds of prefill decide."""
    model = ScaledModel()
    wanted = replace(Want(0), prompt_tokens=prompt_tokens, output_tokens=16)
    model.run(poisson(steady(2), lambda t: replace(wanted, arrived_s=t)), 600)

    assert least <= model.highest <= most
    assert not model.turns_s


def test_one_long_prompt_does_not_start_a_slow_replica() -> None:
    """Six seconds of prefill are done before a replica that needs a minute could help."""
    model = ScaledModel(start_s=60)
    model.run(iter([Want(10, prompt_tokens=60_000, output_tokens=16)]), 100)

    assert model.highest == 1


def test_a_batch_backlog_adds_replicas_at_any_utilization() -> None:
    """Batch requests leave a quarter of an engine free, so held ones count too."""
    model = ScaledModel(target_utilization=0.9)
    model.run(iter([Want(10 + i / 100, is_batch=True) for i in range(400)]), 300)

    assert 2 <= model.highest <= 8


def test_a_model_sleeps_only_after_the_whole_idle_delay() -> None:
    """A request a minute keeps a model awake whose delay is two minutes."""
    model = ScaledModel(least=0, scale_down_delay_s=120, start_s=1)
    model.wake()
    model.run(iter([Want(60 * i) for i in range(1, 11)]), 900)

    assert model.target_at(700) == 1
    assert model.target_at(900) == 0
