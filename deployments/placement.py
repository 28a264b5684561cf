"""Placement of an entry's engines, as options of Ray Serve and of vLLM."""

from collections import Counter, defaultdict
from typing import Any

import ray
from ray.util import get_current_placement_group, placement_group_table

from deployments.engines.vllm.executor import IN_CORE
from gateway.cluster.placement import Placement, Resources, plan_placement, rank_order
from gateway.config.hardware import Cpu, PlacedEntry
from gateway.config.model import ModelEntry
from gateway.config.references import Reference, unescaped
from gateway.config.secrets import is_secret
from gateway.config.vllm import VllmEntry

THREADS_BIND, UNBOUND = "VLLM_CPU_OMP_THREADS_BIND", "nobind"
THREADS = "OMP_NUM_THREADS"
NO_COMPILER = "TORCHDYNAMO_DISABLE"
COPIED_TO_WORKERS = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"


def serve_options(entry: ModelEntry) -> dict[str, Any]:
    """Options of Serve that place the engines of an entry."""
    placement = plan_placement(entry)
    hidden = private_names(entry)
    env = {n: unescaped(v) for n, v in environment(entry).items() if n not in hidden}
    options: dict[str, Any] = {"ray_actor_options": actor_options(placement, env)}
    if placement.bundles:
        options["placement_group_bundles"] = [dict(bundle) for bundle in placement.bundles]
        options["placement_group_strategy"] = placement.strategy
    return options


def environment(entry: ModelEntry) -> dict[str, str]:
    """Environment of an entry's engines: the entry's own, and settings for sharing a machine."""
    if isinstance(entry, VllmEntry) and isinstance(entry.accelerator, Cpu):
        # By default vLLM binds every engine of a machine to the same cores, and needs a NUMA node
        # for each worker. Unbound, each worker would have threads for all that Ray has reserved for
        # the replica.
        threads = str(max(1, int(entry.cpus_per_worker)))
        return {THREADS_BIND: UNBOUND, THREADS: threads, **_without_compiler(entry), **entry.env}
    return entry.env


def _without_compiler(entry: VllmEntry) -> dict[str, str]:
    """Environment in which an eager engine compiles nothing at all.

    `enforce_eager` is about the model only. vLLM 0.32 has the ranks of log-probabilities counted by
    a kernel that Inductor makes when they are first asked for: 20 to 60 s of a C++ compiler, in
    which the engine answers nobody, for what takes some microseconds without.
    """
    return {NO_COMPILER: "1"} if entry.engine_args.get("enforce_eager") is True else {}


def private_names(entry: ModelEntry) -> set[str]:
    """Variables of the entry that its engine's process sets itself.

    Ray stores and logs the environment that it is given: secrets, and references to any, stay out.
    """
    return {
        name
        for name, value in entry.env.items()
        if Reference.of(value) or is_secret(("env", name), value)
    }


def private_environment(entry: ModelEntry, resolved: ModelEntry) -> dict[str, str]:
    """Values of the entry's private variables, `resolved` in this process.

    vLLM copies them to workers on other nodes, if it is told their names.
    """
    hidden = sorted(private_names(entry))
    values = {name: resolved.env[name] for name in hidden}
    if hidden and isinstance(entry, VllmEntry):
        named = resolved.env.get(COPIED_TO_WORKERS, "")
        values[COPIED_TO_WORKERS] = ",".join(filter(None, [named, *hidden]))
    return values


def executor(entry: VllmEntry) -> str | None:
    """vLLM's `distributed_executor_backend` for the entry: how it runs the workers.

    A single worker runs inside the engine core. On a CPU vLLM replaces `uni` by `mp`, because only
    in a process of its own can a worker's threads be bound before they start. Where none are bound,
    such a process does harm: it and the engine core spin while they wait for each other, on cores
    that other engines could use.
    """
    backend = plan_placement(entry).executor
    is_unbound = isinstance(entry.accelerator, Cpu) and environment(entry)[THREADS_BIND] == UNBOUND
    return IN_CORE if backend == "uni" and is_unbound else backend


def actor_options(placement: Placement, env: dict[str, str]) -> dict[str, Any]:
    """Options of the replica's actor: what it reserves, and its environment."""
    named = dict(placement.actor)
    options: dict[str, Any] = {"num_cpus": named.pop("CPU"), "num_gpus": named.pop("GPU", 0)}
    if named:
        options["resources"] = named
    if env:
        options["runtime_env"] = {"env_vars": dict(env)}
    return options


def rank_environment(entry: PlacedEntry) -> dict[str, str]:
    """Environment variables that place vLLM's ranks on this replica's bundles.

    Called in the replica, before its engine starts; empty where no worker has its own bundle.

    Raises:
        PlacementFailed: a pipeline stage would span two nodes.
    """
    if plan_placement(entry).strategy != "PACK":
        return {}
    nodes = placement_group_table(get_current_placement_group())["bundles_to_node_id"]
    order = rank_order(
        [nodes[bundle] for bundle in sorted(nodes)],
        entry.parallelism.tensor,
        ray.get_runtime_context().get_node_id(),
    )
    return {"VLLM_RAY_BUNDLE_INDICES": ",".join(map(str, order))}


def reserved(entry: PlacedEntry) -> dict[str, Resources]:
    """Resources that this replica of the entry's model has reserved, by the node's id."""
    group = get_current_placement_group()
    if group is None:
        return {ray.get_runtime_context().get_node_id(): plan_placement(entry).actor}
    table = placement_group_table(group)
    amounts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for bundle, node in table["bundles_to_node_id"].items():
        amounts[node].update(table["bundles"][bundle])
    return {node: dict(sums) for node, sums in amounts.items()}
