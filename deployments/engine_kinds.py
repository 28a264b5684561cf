"""Kinds of engines, and how one of each is started: a new kind is added here and in its package."""

import os
from pathlib import Path

from pydantic import JsonValue

from deployments.engines.server import RunningEngine
from deployments.engines.vllm.request_limits import set_request_limits
from deployments.engines.vllm.version import supported_version
from deployments.engines.weights import AdapterFiles, resolve_source
from deployments.placement import executor, rank_environment
from gateway.config.model import ModelEntry
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry

PROJECT_ROOT = Path(__file__).resolve().parent.parent


async def start_engine(entry: ModelEntry) -> RunningEngine:
    """Start the engine of an entry; returns once it can serve.

    Raises:
        ConfigError: the entry asks for something the engine or this node does not have.
        UnsupportedVersion: the installed vLLM lacks a name that the gateway uses.
    """
    os.environ.update(rank_environment(entry))
    match entry:
        case SimEntry():
            from deployments.engines.sim.engine import SimulatedEngine  # noqa: PLC0415

            return await SimulatedEngine.start(entry)
        case VllmEntry():
            # Imports that take seconds, and that need vLLM to be installed.
            with supported_version():
                from deployments.engines.vllm.engine import VllmEngine  # noqa: PLC0415

                limits = getattr(entry, "limits", None)
                set_request_limits(*(limits.n, limits.prompts) if limits else ())
                return await VllmEngine.start(
                    vllm_arguments(entry),
                    adapter_files(entry),
                    entry.loaded_adapters_limit,
                    media=entry.media,
                    grammar_timeout_s=entry.grammar_timeout_s,
                )


def vllm_arguments(entry: VllmEntry) -> dict[str, JsonValue]:
    """Arguments of vLLM, by its own names, for an entry."""
    arguments: dict[str, JsonValue] = {
        "model": resolve_source(entry.source, source_roots()),
        "served_model_name": [entry.name],
        "tensor_parallel_size": entry.parallelism.tensor,
        "pipeline_parallel_size": entry.parallelism.pipeline,
        "distributed_executor_backend": executor(entry),
        "allowed_media_domains": list[JsonValue](entry.media.host_names),
        "max_model_len": entry.max_model_len,
        "gpu_memory_utilization": entry.gpu_memory_utilization,
    }
    return {**arguments, **entry.engine_args}


def adapter_files(entry: ModelEntry) -> list[AdapterFiles]:
    """Files of the entry's adapters."""
    roots = source_roots()
    return [AdapterFiles(adapter.name, adapter.source, roots) for adapter in entry.adapters]


def source_roots() -> tuple[Path, ...]:
    """Directories that relative paths in an entry may start from."""
    return Path.cwd(), PROJECT_ROOT
