"""How vLLM's engine core is started."""

import argparse
import os
import secrets

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.metrics.loggers import StatLoggerFactory

from deployments.engines.vllm.cache_guard import CacheGuard, check_isolation
from deployments.engines.vllm.observed_llm import ObservedLLM
from deployments.engines.vllm.stats import RayMetricsLogger, StepStatistics
from gateway.config.cache_isolation import CacheIsolation
from gateway.identity.cache_scope import SALTS, CacheSalts
from gateway.proxy_key import cluster_key

RENDERER_THREADS = 4
"""Threads that tokenize prompts. By itself, vLLM 0.32 has one, which a single prompt of some
megabytes holds for many seconds."""


def launch(
    args: argparse.Namespace, step_statistics: StepStatistics, cache_isolation: CacheIsolation
) -> ObservedLLM:
    """Start the engine core with `args`.

    Raises:
        ConfigError: its caches would not keep scopes apart, as `cache_isolation` requires.
    """
    engine_args = AsyncEngineArgs.from_cli_args(args)
    stat_loggers: list[StatLoggerFactory] = [step_statistics.logger]
    if not engine_args.disable_log_stats:
        stat_loggers.append(RayMetricsLogger)
    config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    if cache_isolation == "required":
        check_isolation(config)
    model = config.model_config
    if args.renderer_num_workers == 1 and not (
        model.is_multimodal_model and model.runner_type == "pooling"  # vLLM allows only one there
    ):
        model.renderer_num_workers = RENDERER_THREADS
    llm: ObservedLLM = ObservedLLM.from_vllm_config(
        vllm_config=config,
        usage_context=UsageContext.OPENAI_API_SERVER,
        enable_log_requests=engine_args.enable_log_requests,
        disable_log_stats=engine_args.disable_log_stats,
        stat_loggers=stat_loggers,
    )
    # A random key does as well: blocks are then of use to this engine alone.
    salts = CacheSalts(cluster_key(SALTS, os.environ) or secrets.token_bytes(32))
    llm.guard_caches(CacheGuard(salts, has_private_caches=cache_isolation != "none"))
    return llm
