"""Choosing a replica."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.fleet import Replica
from gateway.routing.policy import LeastInFlight
from gateway.telemetry import EngineFacts, ReplicaMetadata

FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=1, block_size=1, max_sequences=1, max_model_len=1
)
METADATA = ReplicaMetadata(model="m", host="h", port=1, key="k", facts=FACTS)

NOW_S = 100.0


def policy(seed: int = 1) -> LeastInFlight:
    """The policy with reproducible ties."""
    generator = random.Random(seed)  # noqa: S311 - breaks ties, keeps no secret
    return LeastInFlight(generator, lambda: NOW_S)


def replicas(*in_flight: int) -> list[Replica]:
    """Replicas with so many requests each."""
    return [Replica(str(i), METADATA, in_flight=n) for i, n in enumerate(in_flight)]


@pytest.mark.parametrize(
    ("in_flight", "chosen"), [((0,), "0"), ((2, 1, 3), "1"), ((5, 4, 4, 0), "3"), ((0, 9), "0")]
)
def test_fewest_in_flight_wins(in_flight: tuple[int, ...], chosen: str) -> None:
    """The replica with the fewest requests is chosen."""
    assert policy().choose(replicas(*in_flight)).id == chosen


def test_ties_are_spread() -> None:
    """Among equals every one is chosen about equally often."""
    chooser = policy()
    candidates = replicas(1, 0, 0, 0)
    chosen = [chooser.choose(candidates).id for _ in range(3000)]
    assert {i for i in "0123" if chosen.count(i) > 900} == {"1", "2", "3"}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers())
def test_choice_is_a_candidate_with_the_minimum(in_flight: list[int], seed: int) -> None:
    """For any load the choice has the minimum of it."""
    chosen = policy(seed).choose(replicas(*in_flight))
    assert chosen.in_flight == min(in_flight)


def test_a_replica_that_could_not_be_reached_is_left_out_for_a_while() -> None:
    """It has nothing in flight because it refuses everything: it must not draw all requests."""
    dead, busy = replicas(0, 9)
    dead.shunned_until_s = NOW_S + 1

    assert policy().choose([dead, busy]) is busy
    assert policy().choose([dead]) is dead

    dead.shunned_until_s = NOW_S
    assert policy().choose([dead, busy]) is dead
