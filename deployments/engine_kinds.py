"""Kinds of engines, and how one of each is started: a new kind is added here and in its package."""

import logging
import os
import traceback

from pydantic import JsonValue

from deployments.engine_failure import (
    EngineStartFailed,
    ProcessOutput,
    explain_start_failure,
)
from deployments.engines.server import RunningEngine
from deployments.engines.vllm.request_limits import set_request_limits
from deployments.engines.vllm.version import supported_version
from deployments.engines.weights import AdapterFiles, resolve_source
from deployments.placement import executor, private_environment, rank_environment
from gateway.config.model import ModelEntry
from gateway.config.model_paths import located_arguments, source_roots
from gateway.config.references import Resolver
from gateway.config.resolution import resolve_entry
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry

logger = logging.getLogger(__name__)


async def start_engine(entry: ModelEntry) -> RunningEngine:
    """Start the engine of an entry, once its references are resolved; returns once it can serve.

    Raises:
        EngineStartFailed: with the reason on one line, and no secret in it.
    """
    resolver = Resolver(os.environ, source_roots())
    output = ProcessOutput()
    try:
        resolved = resolve_entry(entry, resolver)
        os.environ.update(rank_environment(resolved))
        os.environ.update(private_environment(entry, resolved))
        return await _start(resolved)
    except Exception as error:  # noqa: BLE001 - the edge at which any failure becomes a reason
        reason, is_final = explain_start_failure(error, output.cause())
        reason = resolver.masked(reason)
        # Only the frames: the messages of other errors may hold what references stood for.
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("model %s: its engine does not start: %s\n%s", entry.name, reason, frames)  # noqa: TRY400
        raise EngineStartFailed(reason, is_final) from None


async def _start(entry: ModelEntry) -> RunningEngine:
    match entry:
        case SimEntry():
            from deployments.engines.sim.engine import SimulatedEngine  # noqa: PLC0415

            return await SimulatedEngine.start(entry)
        case VllmEntry():
            # Imports that take seconds, and that need vLLM to be installed.
            with supported_version():
                from deployments.engines.vllm.engine import VllmEngine  # noqa: PLC0415

                set_request_limits(entry.limits.n, entry.limits.prompts)
                return await VllmEngine.start(
                    vllm_arguments(entry),
                    adapter_files(entry),
                    entry.loaded_adapters_limit,
                    media=entry.media,
                    grammar_timeout_s=entry.grammar_timeout_s,
                    cache_isolation=entry.cache_isolation,
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
    return {**arguments, **located_arguments(entry.engine_args, source_roots())}


def adapter_files(entry: ModelEntry) -> list[AdapterFiles]:
    """Files of the entry's adapters."""
    roots = source_roots()
    return [AdapterFiles(adapter.name, adapter.source, roots) for adapter in entry.adapters]
