"""A placement as Ray Serve and vLLM take it."""

from typing import Any

import ray
from ray.util import get_current_placement_group, placement_group_table

from gateway.placement import Placement, place, rank_order
from gateway.registry.model import ModelEntry
from gateway.registry.vllm import Cpu, VllmEntry


def serve_options(entry: ModelEntry) -> dict[str, Any]:
    """The deployment options that place the engines of an entry."""
    placement = place(entry)
    env = environment(entry)
    options: dict[str, Any] = {"ray_actor_options": actor_options(placement, env)}
    if placement.bundles:
        options["placement_group_bundles"] = [dict(bundle) for bundle in placement.bundles]
        options["placement_group_strategy"] = placement.strategy
    return options


def environment(entry: ModelEntry) -> dict[str, str]:
    """The environment of an entry's engines: its own, and what running beside others asks for."""
    if isinstance(entry, VllmEntry) and isinstance(entry.accelerator, Cpu):
        # By itself vLLM binds every engine of a machine to the same cores, and wants a NUMA node
        # for each worker. Ray limits the threads to the CPUs a replica has reserved.
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", **entry.env}
    return entry.env


def actor_options(placement: Placement, env: dict[str, str]) -> dict[str, Any]:
    """What the replica's actor reserves, and its environment."""
    named = dict(placement.actor)
    options: dict[str, Any] = {"num_cpus": named.pop("CPU"), "num_gpus": named.pop("GPU", 0)}
    if named:
        options["resources"] = named
    if env:
        options["runtime_env"] = {"env_vars": dict(env)}
    return options


def rank_environment(entry: VllmEntry) -> dict[str, str]:
    """The variables by which vLLM puts its ranks where this replica's bundles lie.

    Called in the replica, before vLLM starts; empty where vLLM does not run on Ray's bundles.

    Raises:
        PlacementFailed: a pipeline stage would span two nodes.
    """
    if place(entry).executor != "ray":
        return {}
    nodes = placement_group_table(get_current_placement_group())["bundles_to_node_id"]
    order = rank_order(
        [nodes[bundle] for bundle in sorted(nodes)],
        entry.parallelism.tensor,
        ray.get_runtime_context().get_node_id(),
    )
    return {"VLLM_RAY_BUNDLE_INDICES": ",".join(map(str, order))}
