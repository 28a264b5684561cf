"""What a running vLLM says of itself."""

from collections.abc import Iterable

from vllm.v1.engine.async_llm import AsyncLLM

from deployments.engines.vllm.observed_llm import ObservedLLM
from gateway.telemetry.facts import EngineFacts, PromptLayout


def engine_facts(
    llm: ObservedLLM, routes: Iterable[object], adapters: Iterable[str], layout: PromptLayout
) -> EngineFacts:
    """What does not change while `llm` runs, with the paths of its application's `routes`."""
    config = llm.vllm_config
    cache = config.cache_config
    return EngineFacts(
        engine="vllm",
        routes=tuple(sorted(_post_paths(routes))),
        kv_tokens=cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size,
        block_size=cache.block_size,
        max_sequences=config.scheduler_config.max_num_seqs,
        max_model_len=config.model_config.max_model_len,
        supports_priority=config.scheduler_config.policy == "priority",
        step_tokens=config.scheduler_config.max_num_batched_tokens,
        adapters=tuple(adapters),
        layout=layout,
        devices=config.parallel_config.world_size,
        model=_served_name(llm),
        has_private_caches=llm.has_private_caches,
    )


def _served_name(llm: AsyncLLM) -> str:
    """The model's name, which the entry gives it."""
    name = llm.model_config.served_model_name
    return str(name[0] if isinstance(name, list) else name)


def holds_prefixes(llm: AsyncLLM) -> bool:
    """Whether the engine keeps the prefixes of prompts in its cache."""
    return bool(llm.vllm_config.cache_config.enable_prefix_caching)


def _post_paths(routes: Iterable[object]) -> set[str]:
    return {
        str(getattr(route, "path", ""))
        for route in routes
        if "POST" in (getattr(route, "methods", None) or ())
    }
