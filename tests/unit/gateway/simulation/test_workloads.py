"""Generated workloads: the prefixes that each shares, and that they never change."""

import pytest

from gateway.simulation.results import infinite_cache_hit_rate
from gateway.simulation.workloads import GENERATORS, PREFIX_BLOCKS, TENANT_COUNT, generate_workload

COUNT = 600


@pytest.mark.parametrize("name", GENERATORS)
def test_a_name_always_gives_the_same_requests_in_order(name: str) -> None:
    """The same twice, a smaller count is a prefix of a larger, and times never decrease."""
    requests = generate_workload(name, COUNT).requests
    times_s = [request.arrived_s for request in requests]

    assert len(requests) == COUNT
    assert times_s == sorted(times_s)
    assert generate_workload(name, COUNT // 3).requests == requests[: COUNT // 3]


def test_nothing_is_shared_in_none() -> None:
    """A cache of any size has no hits."""
    assert infinite_cache_hit_rate(generate_workload("none", COUNT)) == 0


def test_all_prompts_begin_alike_in_hot() -> None:
    """They share one prefix; the rest is different."""
    prompts = [request.prompt for request in generate_workload("hot", COUNT).requests]
    assert len({tuple(prompt.keys[:PREFIX_BLOCKS]) for prompt in prompts}) == 1
    longer = [prompt.keys[PREFIX_BLOCKS] for prompt in prompts if len(prompt.keys) > PREFIX_BLOCKS]
    assert len(set(longer)) == len(longer) > 0


def test_each_tenant_has_its_prefix() -> None:
    """There are many prefixes, each of several requests, some of many more than others."""
    prompts = [request.prompt for request in generate_workload("tenants", 5000).requests]
    counts: dict[tuple[int, ...], int] = {}
    for prompt in prompts:
        prefix = tuple(prompt.keys[:PREFIX_BLOCKS])
        counts[prefix] = counts.get(prefix, 0) + 1
    assert len(counts) == TENANT_COUNT
    assert max(counts.values()) > 5 * min(counts.values()) > 5


@pytest.mark.parametrize("name", ["agents", "conversation"])
def test_a_turn_begins_with_the_whole_blocks_of_the_turn_before(name: str) -> None:
    """Most prompts continue an earlier one, and are longer."""
    seen: dict[tuple[int, ...], int] = {}
    continued = 0
    for request in generate_workload(name, COUNT).requests:
        keys = tuple(request.prompt.keys)
        ends = [n for n in range(3, len(keys) + 1) if keys[:n] in seen]
        if ends:
            continued += 1
            assert request.prompt_tokens > seen[keys[: ends[-1]]]
        seen[keys] = request.prompt_tokens
    assert continued > COUNT / 4
