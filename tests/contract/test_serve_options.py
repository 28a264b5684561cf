"""Options of Serve for a model's engines."""

from typing import Any

import pytest
from ray import serve

from deployments.engine_kinds import vllm_arguments
from deployments.engines.vllm.executor import IN_CORE
from deployments.placement import private_environment, serve_options
from gateway.cluster.placement import plan_placement
from gateway.config.loader import parse_entry
from gateway.config.references import Resolver
from gateway.config.resolution import resolve_entry
from gateway.config.vllm import VllmEntry


def test_cpu_engines_are_not_bound_to_cores() -> None:
    """By default, each of several engines on a machine would be bound to the same cores."""
    entry = {"name": "m", "engine": "vllm", "source": "m", "accelerator": "cpu"}

    options = serve_options(parse_entry({**entry, "env": {"OTHER": "1"}}))
    chosen = serve_options(parse_entry({**entry, "env": {"VLLM_CPU_OMP_THREADS_BIND": "0-7"}}))

    env = options["ray_actor_options"]["runtime_env"]["env_vars"]
    assert env == {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "OTHER": "1"}
    env = chosen["ray_actor_options"]["runtime_env"]["env_vars"]
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0-7"


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"engine_args": {"enforce_eager": True}}, "1"),
        ({"engine_args": {"enforce_eager": True}, "env": {"TORCHDYNAMO_DISABLE": "0"}}, "0"),
        ({"engine_args": {"enforce_eager": False}}, None),
        ({}, None),
        ({"engine_args": {"enforce_eager": True}, "accelerator": "L4"}, None),
    ],
)
def test_eager_engines_on_cpus_compile_nothing(fields: dict[str, Any], value: str | None) -> None:
    """Not even the kernel of the first log-probabilities, unless the entry says so."""
    entry = {"name": "m", "engine": "vllm", "source": "m", "accelerator": "cpu", **fields}
    options = serve_options(parse_entry(entry))["ray_actor_options"]
    assert options.get("runtime_env", {}).get("env_vars", {}).get("TORCHDYNAMO_DISABLE") == value


@pytest.mark.parametrize(
    ("fields", "threads"),
    [
        ({"cpus_per_worker": 0.5}, "1"),
        ({"cpus_per_worker": 4}, "4"),
        ({"cpus_per_worker": 4, "parallelism": {"tensor": 2}}, "4"),
        ({"cpus_per_worker": 4, "env": {"OMP_NUM_THREADS": "2"}}, "2"),
    ],
)
def test_a_cpu_worker_has_the_threads_of_its_own_cpus(
    fields: dict[str, object], threads: str
) -> None:
    """By default, Ray would count all CPUs reserved for the replica."""
    entry = {"name": "m", "engine": "vllm", "source": "m", "accelerator": "cpu", **fields}

    options = serve_options(parse_entry(entry))

    assert options["ray_actor_options"]["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize(
    ("fields", "executor"),
    [
        ({"accelerator": "cpu"}, IN_CORE),
        ({"accelerator": "cpu", "env": {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}}, IN_CORE),
        ({"accelerator": "cpu", "env": {"VLLM_CPU_OMP_THREADS_BIND": "0-7"}}, "uni"),
        ({"accelerator": "cpu", "parallelism": {"tensor": 2}}, "mp"),
        ({}, "uni"),
    ],
)
def test_a_cpu_engine_of_one_worker_runs_it_in_its_core(
    fields: dict[str, object], executor: str
) -> None:
    """Unless vLLM binds the worker's threads, which needs a process of its own."""
    entry = parse_entry({"name": "m", "engine": "vllm", "source": "m", **fields})
    assert isinstance(entry, VllmEntry)

    assert vllm_arguments(entry)["distributed_executor_backend"] == executor


def test_gpu_engines_have_their_entry_s_environment_only() -> None:
    """Settings for CPUs do not apply."""
    options = serve_options(parse_entry({"name": "m", "engine": "vllm", "source": "m"}))

    assert "runtime_env" not in options["ray_actor_options"]
    assert options["ray_actor_options"]["num_gpus"] == 1


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, None),
        ({"gpu_fraction": 0.5}, 0.46),
        ({"gpu_fraction": 0.5, "engine_args": {"gpu_memory_utilization": 0.4}}, 0.4),
    ],
)
def test_engines_on_one_gpu_share_its_memory(
    fields: dict[str, object], share: float | None
) -> None:
    """vLLM gets the fraction as its limit, unless the entry sets another."""
    entry = parse_entry({"name": "m", "engine": "vllm", "source": "m", **fields})
    assert isinstance(entry, VllmEntry)

    assert serve_options(entry)["ray_actor_options"]["num_gpus"] == entry.gpu_fraction
    assert vllm_arguments(entry)["gpu_memory_utilization"] == share


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"accelerator": "cpu"},
        {"accelerator": "H100", "parallelism": {"tensor": 4}},
        {"accelerator": "H100", "parallelism": {"tensor": 8, "pipeline": 2}},
        {"env": {"VLLM_CPU_KVCACHE_SPACE": "1"}},
    ],
)
def test_serve_accepts_the_options(fields: dict[str, object]) -> None:
    """Serve's own checks pass, also that the first bundle includes the actor's share."""
    entry = parse_entry({"name": "m", "engine": "vllm", "source": "m", **fields})
    deployment = serve.deployment(type("Engine", (), {}), **serve_options(entry))
    options = deployment.ray_actor_options
    assert options is not None
    assert options["num_cpus"] == plan_placement(entry).actor["CPU"]
    assert options["num_gpus"] == plan_placement(entry).actor.get("GPU", 0)


def test_the_environment_reaches_the_actor() -> None:
    """The entry's `env` is the replica process's environment."""
    entry = {"name": "m", "engine": "vllm", "source": "m"}
    options = serve_options(parse_entry({**entry, "env": {"NCCL_SOCKET_IFNAME": "eth0"}}))
    assert options["ray_actor_options"]["runtime_env"] == {
        "env_vars": {"NCCL_SOCKET_IFNAME": "eth0"}
    }


def test_secrets_and_references_are_set_by_the_engine_s_own_process() -> None:
    """Ray stores and logs the environment that it is given; vLLM's workers get theirs from it."""
    env = {
        "HF_TOKEN": "env:TOKEN",
        "API_KEY": "plain-but-secret",
        "PLAIN": "env::x",
        "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": "MINE",
    }
    entry = parse_entry({"name": "m", "engine": "vllm", "source": "m", "env": env})
    resolved = resolve_entry(entry, Resolver({"TOKEN": "the token"}))

    public = serve_options(entry)["ray_actor_options"]["runtime_env"]["env_vars"]

    assert public == {"PLAIN": "env:x", "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": "MINE"}
    assert private_environment(entry, resolved) == {
        "HF_TOKEN": "the token",
        "API_KEY": "plain-but-secret",
        "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY": "MINE,API_KEY,HF_TOKEN",
    }
