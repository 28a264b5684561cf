"""Tests of the policies to compare with, and of the registry of all policies."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.policy_names import policy_names
from gateway.config.serving_options import RoutingOptions
from gateway.kvcache.prefix import KEY_BYTES, Prompt
from gateway.routing.cost_model import CostEstimates
from gateway.routing.fleet import Replica
from gateway.routing.policies.cache_aware import CacheAware
from gateway.routing.policies.prefix_affinity import PrefixAffinity
from gateway.routing.policy import Candidate, RequestProfile, RoutingPolicy
from gateway.routing.policy_registry import make_policy
from gateway.routing.sent_prefixes import SentPrefixes
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata

FACTS = EngineFacts(
    engine="fake", routes=(), kv_tokens=1, block_size=1, max_sequences=1, max_model_len=1
)
METADATA = ReplicaMetadata(model="m", host="h", port=1, key="k", facts=FACTS)
ESTIMATES = CostEstimates(
    prefill_s=1e-4, sequence_s=2e-4, step_s=0.012, tokens_per_byte=0.25, output_tokens=100
)
KEYS = st.lists(st.integers(0, 9), max_size=6, unique=True)


def rng(seed: int = 1) -> random.Random:
    """Return a random generator with a fixed seed."""
    return random.Random(seed)  # noqa: S311 - breaks ties, keeps no secret


def request(keys: Sequence[int] = ()) -> RequestProfile:
    """A request whose prompt has these keys, 64 tokens each."""
    prompt = Prompt(keys, size=KEY_BYTES * len(keys))
    return RequestProfile(prompt, prompt_tokens=64 * len(keys), output_tokens=100)


def candidates(*requests: int, pending: Sequence[float] = ()) -> list[Candidate]:
    """Replicas `0`, `1` and so on with these numbers of requests and pending tokens."""
    return [
        Candidate(
            replica=Replica(str(i), METADATA),
            cached_keys=0,
            cached_tokens=0,
            running=running,
            waiting=0,
            pending_tokens=pending[i] if pending else 0,
            free_tokens=0,
        )
        for i, running in enumerate(requests)
    ]


def choose(policy: RoutingPolicy, keys: Sequence[int], among: Sequence[Candidate]) -> str:
    """Return the id of the replica that a policy chooses."""
    return among[policy.choose(request(keys), among, ESTIMATES).index].replica.id


@pytest.mark.parametrize("name", policy_names())
def test_every_policy_has_the_name_that_configurations_use(name: str) -> None:
    """The name in a configuration makes the policy, and decisions show the same name."""
    assert make_policy(name, rng()).name == name
    assert RoutingOptions.model_validate({"policy": name}).policy == name


@pytest.mark.parametrize("name", policy_names())
@given(data=st.data(), prompts=st.lists(KEYS, max_size=5))
def test_every_policy_chooses_a_candidate(
    name: str, data: st.DataObject, prompts: list[list[int]]
) -> None:
    """Any load and prompts give a valid choice, also after replicas have come and gone."""
    policy = make_policy(name, rng())
    for keys in prompts:
        loads = data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=5))
        first = data.draw(st.integers(0, len(loads) - 1))
        choice = policy.choose(request(keys), candidates(*loads)[first:], ESTIMATES)
        assert 0 <= choice.index < len(loads) - first
        assert len(choice.costs) == len(loads) - first


def test_round_robin_chooses_in_turn() -> None:
    """Load does not matter: candidates are chosen one after the other."""
    policy = make_policy("round-robin", rng())
    assert [choose(policy, [], candidates(9, 0, 5)) for _ in range(7)] == list("0120120")


@pytest.mark.parametrize(
    ("requests", "pending", "chosen"),
    [
        ([2, 1, 3], [0, 0, 0], "1"),
        ([0, 0, 0], [500, 400, 700], "1"),
        ([2, 0], [0, 150], "1"),
        ([1, 0], [0, 150], "0"),
        ([7], [0], "0"),
    ],
)
def test_least_pending_chooses_the_fewest_tokens(
    requests: list[int], pending: list[float], chosen: str
) -> None:
    """Pending prompt tokens and expected answer tokens count together."""
    policy = make_policy("least-pending", rng())
    assert choose(policy, [1], candidates(*requests, pending=pending)) == chosen


def test_least_pending_breaks_ties_at_random() -> None:
    """Equal candidates are chosen about equally often."""
    policy = make_policy("least-pending", rng())
    chosen = Counter(choose(policy, [], candidates(1, 0, 0, 0)) for _ in range(3000))
    assert chosen.keys() == set("123")
    assert min(chosen.values()) > 900


def test_prefix_affinity_sends_a_hot_prefix_to_one_replica() -> None:
    """Like Ray's policy, it has no load term by default, so one replica gets everything."""
    policy, loads = PrefixAffinity(rng()), [0] * 8
    for number in range(400):
        chosen = choose(policy, [*range(20), 1000 + number], candidates(*loads))
        loads[int(chosen)] += 1
    assert sorted(loads) == [0] * 7 + [400]


def test_prefix_affinity_sends_new_text_to_the_smallest_record() -> None:
    """Prompts of which no replica has a tenth are spread by the size of the records."""
    policy = PrefixAffinity(rng())
    four = candidates(0, 0, 0, 0)
    chosen = [choose(policy, range(100 * n, 100 * n + 50), four) for n in range(4)]
    assert sorted(chosen) == list("0123")
    back = [choose(policy, range(100 * n, 100 * n + 60), four) for n in range(4)]
    assert back == chosen


@pytest.mark.parametrize(("shared", "is_like"), [(1, False), (2, True), (20, True)])
def test_prefix_affinity_needs_a_tenth_of_the_prompt(shared: int, is_like: bool) -> None:
    """With less in common, the smallest record is chosen."""
    policy, two = PrefixAffinity(rng()), candidates(0, 0)
    first = choose(policy, range(20), two)
    keys = [*range(shared), *range(100, 120 - shared)]
    assert (choose(policy, keys, two) == first) is is_like


def test_prefix_affinity_breaks_ties_by_queue_length() -> None:
    """Of two replicas with the same match, the one with fewer requests is chosen."""
    policy = PrefixAffinity(rng(), imbalance_threshold=10)
    assert choose(policy, [1], candidates(0, 99)) == "0"
    assert choose(policy, [1], candidates(99, 0)) == "1"
    assert choose(policy, [1], candidates(5, 4)) == "1"
    assert choose(policy, [1], candidates(4, 5)) == "0"


def test_prefix_affinity_evicts_the_oldest_keys_down_to_its_target() -> None:
    """A record above its threshold loses its least recently used keys."""
    policy = PrefixAffinity(
        rng(), eviction_threshold_bytes=30 * KEY_BYTES, eviction_target_bytes=12 * KEY_BYTES
    )
    one, two = candidates(0), candidates(0, 0)
    for first in (0, 100, 200, 300):
        choose(policy, range(first, first + 10), one)
    choose(policy, range(900, 950), two)
    assert choose(policy, range(300, 310), two) == "0"
    assert choose(policy, range(10), two) == "0"
    assert policy._sent.match(range(100, 110)) == {}
    assert policy._sent.size("1") == 12


def test_cache_aware_spreads_a_hot_prefix_once_load_is_imbalanced() -> None:
    """One replica gets all requests until it has 64 more than another; then all get some."""
    policy, loads = CacheAware(rng()), [0] * 4
    for number in range(1000):
        chosen = choose(policy, [*range(20), 1000 + number], candidates(*loads))
        loads[int(chosen)] += 1
        if number == 64:
            assert loads == [65, 0, 0, 0]
    assert min(loads) > 0
    assert max(loads) - min(loads) <= 0.5 * min(loads) + 65


@pytest.mark.parametrize(
    ("loads", "chosen"),
    [
        pytest.param((64, 0), "0", id="no more than 64 above"),
        pytest.param((65, 0), "1", id="more than 64 above"),
        pytest.param((265, 200), "0", id="no more than half as many again"),
        pytest.param((301, 200), "1", id="more than half as many again"),
    ],
)
def test_cache_aware_balances_load_beyond_both_thresholds(
    loads: tuple[int, int], chosen: str
) -> None:
    """Load decides only if both the difference and the ratio are large."""
    policy = CacheAware(rng())
    choose(policy, range(10), candidates(0, 0))
    assert choose(policy, range(10), candidates(*loads)) == chosen


@pytest.mark.parametrize(("shared", "is_like"), [(3, False), (4, True), (10, True)])
def test_cache_aware_needs_more_than_three_tenths_of_the_prompt(shared: int, is_like: bool) -> None:
    """With less in common, the smallest record is chosen."""
    policy, two = CacheAware(rng()), candidates(0, 0)
    assert choose(policy, range(10), two) == "0"
    keys = [*range(shared), *range(100, 110 - shared)]
    assert (choose(policy, keys, two) == "0") is is_like


def test_cache_aware_prefers_the_last_replica_and_evicts_the_oldest_keys() -> None:
    """Of two replicas that were sent a prompt, the later one is chosen; records have a limit."""
    policy = CacheAware(rng(), max_tree_bytes=10 * KEY_BYTES)
    choose(policy, range(10), candidates(0, 99))
    choose(policy, range(10), candidates(99, 0))
    assert choose(policy, range(10), candidates(0, 0)) == "1"
    choose(policy, range(100, 110), candidates(99, 0))
    assert choose(policy, range(10), candidates(0, 0)) == "0"


@pytest.mark.parametrize(
    "policy", [PrefixAffinity(rng()), CacheAware(rng())], ids=["ray", "sglang"]
)
def test_records_of_removed_replicas_are_forgotten(policy: PrefixAffinity | CacheAware) -> None:
    """A replica that returns starts with an empty record."""
    before = candidates(0, 0)
    holder = choose(policy, range(10), before)
    stays = [candidate for candidate in before if candidate.replica.id != holder]
    choose(policy, range(50, 60), stays)
    assert choose(policy, range(10), before) == holder
    assert policy._sent.size(holder) == 10


@given(st.lists(st.tuples(st.sampled_from("ab"), KEYS, st.integers(0, 8))), KEYS)
def test_sent_prefixes_are_an_lru_set_for_each_replica(
    calls: list[tuple[str, list[int], int]], prompt: list[int]
) -> None:
    """The records equal plain lists in which sent keys move to the end, deepest first."""
    sent, lists = SentPrefixes(), dict[str, list[int]](a=[], b=[])
    sent.set_replicas("ab")
    for name, keys, size in calls:
        sent.add(name, keys)
        sent.shrink(name, size)
        kept = [key for key in lists[name] if key not in keys] + keys[::-1]
        lists[name] = kept[len(kept) - size :] if len(kept) > size else kept
    for name, kept in lists.items():
        assert sent.size(name) == len(kept)
        length = next((i for i, key in enumerate(prompt) if key not in kept), len(prompt))
        assert sent.match(prompt).get(name, 0) == length
