"""The demo model on real vLLM as each contender deploys it: equal engines, another way there."""

from typing import Any

from loadtests.peers.ray_llm import OPTIMISED, Variant

MODEL = "demo"
ENGINE: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 16}
"""As in configs/dev.yaml, for all."""
VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as the gateway sets it: else all bind the same core
}

PREFIX_ROUTER = "ray.serve.llm.request_router.PrefixCacheAffinityRouter"


def gateway_entry(replicas: int) -> dict[str, Any]:
    """The model as this gateway deploys it."""
    return {
        "name": MODEL,
        "engine": "vllm",
        "source": "models/demo",
        "accelerator": "cpu",
        "cpus_per_worker": 0.5,
        "replicas": replicas,
        "env": {"VLLM_CPU_KVCACHE_SPACE": VARIABLES["VLLM_CPU_KVCACHE_SPACE"]},
        "engine_args": ENGINE,
    }


def variants(replicas: int) -> list[Variant]:
    """The model as Ray Serve LLM deploys it, with Serve's switches for throughput."""
    router = {"request_router_config": {"request_router_class": PREFIX_ROUTER}}
    return [
        Variant(
            name=name,
            variables={**OPTIMISED, **VARIABLES},
            llm_config={
                "engine_kwargs": {**ENGINE, "enable_prompt_tokens_details": True},
                "placement_group_config": {"bundles": [{"CPU": 1}]},
                "deployment_config": {"num_replicas": replicas, **deployment},
            },
            model=MODEL,
        )
        for name, deployment in (("ray-serve-llm", {}), ("ray-serve-llm prefix-aware", router))
    ]
