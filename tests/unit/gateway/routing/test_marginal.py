"""Tests of the default policy: own time and the delay of others are weighed."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kvcache.prefix import NO_PROMPT
from gateway.routing.cost_model import CostEstimates
from gateway.routing.fleet import Replica
from gateway.routing.policies.marginal import Marginal
from gateway.routing.policy import Candidate, RequestProfile
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata

FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=1, block_size=1, max_sequences=1, max_model_len=1
)
ESTIMATES = CostEstimates(
    prefill_s=1e-4, sequence_s=2e-4, step_s=0.012, tokens_per_byte=0.25, output_tokens=100
)
State = tuple[float, int, float]
"""Cached tokens, requests and pending tokens of a replica."""


def policy(seed: int = 1) -> Marginal:
    """The policy, with reproducible ties."""
    return Marginal(random.Random(seed))  # noqa: S311 - breaks ties, keeps no secret


def candidates(*states: State) -> list[Candidate]:
    """Replicas `0`, `1` and so on in these states."""
    return [
        Candidate(
            replica=Replica(
                str(i), ReplicaMetadata(model="m", host="h", port=1, key="k", facts=FACTS)
            ),
            cached_keys=0,
            cached_tokens=cached,
            running=requests,
            waiting=0,
            pending_tokens=pending,
            free_tokens=0,
        )
        for i, (cached, requests, pending) in enumerate(states)
    ]


def request(prompt_tokens: float = 6000, session: bytes = b"") -> RequestProfile:
    """A request whose answer has 100 tokens."""
    return RequestProfile(NO_PROMPT, prompt_tokens, output_tokens=100, session=session)


@pytest.mark.parametrize(
    ("states", "chosen"),
    [
        pytest.param([(0, 0, 0)], 0, id="the only one"),
        pytest.param([(0, 0, 0), (5000, 0, 0), (0, 0, 0)], 1, id="the holder, when all are idle"),
        pytest.param([(4000, 0, 0), (5000, 0, 0)], 1, id="the one that holds more"),
        pytest.param([(5000, 3, 0), (0, 0, 0)], 0, id="the holder, when a little busy"),
        pytest.param([(5000, 8, 20000), (0, 0, 0)], 1, id="another, when it has much to compute"),
        pytest.param([(5900, 99, 0), (0, 0, 0)], 1, id="another, when it has many to decode"),
        pytest.param([(0, 0, 500), (0, 0, 0)], 1, id="the fewest pending tokens"),
        pytest.param([(0, 2, 0), (0, 1, 0)], 1, id="the fewest requests"),
        pytest.param([(0, 1, 0), (0, 0, 3000)], 1, id="its own time and theirs are both seconds"),
        pytest.param([(0, 1, 0), (0, 0, 3200)], 0, id="half of their delay counts"),
    ],
)
def test_the_least_cost_is_chosen(states: Sequence[State], chosen: int) -> None:
    """Cache, pending work and the others' delay are weighed against each other."""
    assert policy().choose(request(), candidates(*states), ESTIMATES).index == chosen


def test_costs_are_in_seconds() -> None:
    """Its own prefill behind what is pending, and half of what it delays each of the others by."""
    choice = policy().choose(request(), candidates((2000, 4, 1000)), ESTIMATES)
    assert choice.costs == pytest.approx([(1000 + 4000) * 1e-4 + 0.5 * 4 * (0.4 + 0.02)])


@given(st.lists(st.tuples(st.floats(0, 6000), st.integers(0, 99), st.floats(0, 1e5)), min_size=1))
def test_the_choice_has_the_least_of_the_costs(states: list[State]) -> None:
    """The costs explain the choice for any state of the replicas."""
    choice = policy().choose(request(), candidates(*states), ESTIMATES)
    assert len(choice.costs) == len(states)
    assert choice.costs[choice.index] == min(choice.costs)


def test_a_hot_prefix_spreads_under_load() -> None:
    """If all requests want what one replica holds, the others soon hold it too."""
    chooser = policy()
    states: list[State] = [(5000, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
    for _ in range(200):
        index = chooser.choose(request(), candidates(*states), ESTIMATES).index
        cached, requests, pending = states[index]
        states[index] = (5000, requests + 1, pending + 6000 - cached)
    assert all(40 <= requests <= 60 for _, requests, _ in states)


def test_ties_go_to_the_fewest_requests() -> None:
    """With nothing to compute costs are equal, and the least busy replica is chosen."""
    nothing = RequestProfile(NO_PROMPT, prompt_tokens=0, output_tokens=0)
    states: list[State] = [(0, 2, 0), (0, 1, 0), (0, 3, 0)]
    assert policy().choose(nothing, candidates(*states), ESTIMATES).index == 1


def test_full_ties_are_broken_at_random() -> None:
    """Equal replicas are chosen about equally often."""
    chooser = policy()
    states: list[State] = [(0, 1, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
    chosen = Counter(
        chooser.choose(request(), candidates(*states), ESTIMATES).index for _ in range(3000)
    )
    assert chosen.keys() == {1, 2, 3}
    assert min(chosen.values()) > 900


def test_a_session_returns_to_its_replica() -> None:
    """Every router chooses the same one, also after replicas are added; sessions are spread."""
    idle: list[State] = [(0, 0, 0)] * 8
    homes = {}
    for number in range(80):
        session = request(session=b"s%d" % number)
        chosen = {
            policy(seed).choose(session, candidates(*idle), ESTIMATES).index for seed in (1, 2, 3)
        }
        assert len(chosen) == 1
        homes[number] = chosen.pop()
        longer = policy().choose(session, candidates(*idle, (0, 0, 0)), ESTIMATES).index
        assert longer in {homes[number], 8}
    assert set(homes.values()) == set(range(8))


@pytest.mark.parametrize(
    ("home_state", "other_state"),
    [((0, 5, 0), (0, 0, 0)), ((0, 0, 1000), (0, 0, 0)), ((0, 0, 0), (1000, 0, 0))],
    ids=["home is busy", "home has work to do", "another holds the prompt"],
)
def test_a_session_leaves_a_replica_that_costs_too_much(
    home_state: State, other_state: State
) -> None:
    """Its replica is preferred by a tenth of the prompt's prefill, and no more."""
    session = request(session=b"s")
    idle: list[State] = [(0, 0, 0)] * 2
    home = policy().choose(session, candidates(*idle), ESTIMATES).index
    states = [other_state, other_state]
    states[home] = home_state
    assert policy().choose(session, candidates(*states), ESTIMATES).index != home
