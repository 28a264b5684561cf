"""Placement of workers on nodes, and the order of their ranks."""

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cluster.placement import Placement, plan_placement, rank_order
from gateway.config.loader import parse_entry
from gateway.config.model import ModelEntry
from gateway.errors.startup import PlacementFailed

H100 = "accelerator_type:H100"


def vllm(**fields: object) -> ModelEntry:
    """A vLLM entry with these fields besides the required ones."""
    return parse_entry({"engine": "vllm", "name": "m", "source": "s", **fields})


@pytest.mark.parametrize(
    ("entry", "placement"),
    [
        (
            parse_entry({"engine": "sim", "name": "m", "cpus_per_worker": 0.2}),
            Placement({"CPU": 0.2}),
        ),
        (vllm(), Placement({"CPU": 1, "GPU": 1}, "uni", 1, 1)),
        (vllm(accelerator="H100"), Placement({"CPU": 1, "GPU": 1, H100: 0.001}, "uni", 1, 1)),
        (vllm(accelerator="cpu", cpus_per_worker=0.5), Placement({"CPU": 0.5}, "uni", 1, 0)),
        (
            vllm(parallelism={"tensor": 4}, accelerator="H100", cpus_per_worker=2),
            Placement(
                {"CPU": 8, "GPU": 4, H100: 0.001},
                "mp",
                4,
                1,
                ({"CPU": 8, "GPU": 4, H100: 0.001},),
                "STRICT_PACK",
            ),
        ),
        (
            vllm(parallelism={"tensor": 2, "pipeline": 4}),
            Placement({"CPU": 8, "GPU": 8}, "mp", 8, 1, ({"CPU": 8, "GPU": 8},), "STRICT_PACK"),
        ),
        (
            vllm(
                parallelism={"tensor": 4, "pipeline": 2},
                accelerator={"type": "H100", "per_node": 4},
                cpus_per_worker=2,
            ),
            Placement({"CPU": 2}, "ray", 8, 1, ({"CPU": 2, "GPU": 1, H100: 0.001},) * 8, "PACK"),
        ),
        (
            vllm(parallelism={"tensor": 3}, accelerator="cpu", cpus_per_worker=0.1),
            Placement({"CPU": 0.3}, "mp", 3, 0, ({"CPU": 0.3},), "STRICT_PACK"),
        ),
        (
            vllm(gpu_fraction=0.25, accelerator="L4"),
            Placement({"CPU": 1, "GPU": 0.25, "accelerator_type:L4": 0.001}, "uni", 1, 0.25),
        ),
    ],
)
def test_workers_share_a_bundle_if_they_fit_on_one_node(
    entry: ModelEntry, placement: Placement
) -> None:
    """Workers that fit on one node share one bundle; otherwise each has its own."""
    assert plan_placement(entry) == placement


@pytest.mark.parametrize(
    "fields",
    [
        {"accelerator": "H100"},
        {"accelerator": "gpu", "gpu_fraction": 0.5},
        {"accelerator": "H100", "parallelism": {"tensor": 4}},
        {"accelerator": "H100", "parallelism": {"tensor": 8, "pipeline": 2}},
    ],
)
def test_a_simulated_model_is_placed_like_a_real_one(fields: dict[str, object]) -> None:
    """The same fields give the same placement, except that there is no executor."""
    simulated = parse_entry({"engine": "sim", "name": "m", "cpus_per_worker": 1, **fields})

    assert plan_placement(simulated) == replace(plan_placement(vllm(**fields)), executor=None)


def test_totals_count_all_workers() -> None:
    """GPUs and CPUs are summed over all nodes of a replica."""
    over_nodes = plan_placement(vllm(parallelism={"tensor": 8, "pipeline": 2}, cpus_per_worker=1.5))
    assert (over_nodes.gpus, over_nodes.cpus) == (16, 24)
    alone = plan_placement(vllm(accelerator="cpu", cpus_per_worker=0.5))
    assert (alone.gpus, alone.cpus) == (0, 0.5)


@pytest.mark.parametrize(
    ("nodes", "tensor", "order"),
    [
        ("aabb", 2, [0, 1, 2, 3]),
        ("bbaa", 2, [2, 3, 0, 1]),
        ("abab", 2, [0, 2, 1, 3]),
        ("cacbab", 2, [1, 4, 0, 2, 3, 5]),
        ("aaaa", 2, [0, 1, 2, 3]),
        ("ab", 1, [0, 1]),
    ],
)
def test_ranks_are_ordered_by_the_nodes_of_their_bundles(
    nodes: str, tensor: int, order: list[int]
) -> None:
    """The replica's own node comes first, and bundles on one node are adjacent."""
    assert rank_order(nodes, tensor, first_node="a") == order


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=32), st.sampled_from([1, 2, 4, 8]))
def test_a_stage_never_spans_nodes(nodes: list[str], tensor: int) -> None:
    """Every stage is on one node; if that is impossible, the order is refused."""
    possible = all(nodes.count(node) % tensor == 0 for node in nodes)
    if not possible:
        with pytest.raises(PlacementFailed):
            rank_order(nodes, tensor, "a")
        return
    order = rank_order(nodes, tensor, "a")
    assert sorted(order) == list(range(len(nodes)))
    stages = [order[i : i + tensor] for i in range(0, len(order), tensor)]
    assert all(len({nodes[bundle] for bundle in stage}) == 1 for stage in stages)


def test_a_split_stage_is_explained() -> None:
    """The error says what is needed and what Ray placed, and survives pickling."""
    with pytest.raises(PlacementFailed) as caught:
        rank_order("aaabbbbb", 4, "a")
    assert str(caught.value) == (
        "each pipeline stage needs 4 GPUs on one node, but Ray placed the workers 3 + 5 on 2 nodes"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
