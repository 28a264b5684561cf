"""Entries of models that vLLM runs."""

import json
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from gateway.config.hardware import Placed
from gateway.config.strict import conflict

MEMORY_SHARE = 0.92
"""How much of its part of a GPU's memory an engine takes: what vLLM takes of a whole GPU."""

_PLACED = "is chosen from `parallelism` and `accelerator`"
_SERVED = "is decided by the replica's own HTTP server"
_RESERVED_ARGS = {
    "model": "is set by `source`",
    "served_model_name": "is set by `name`",
    "max_model_len": "is set by the entry's own `max_model_len`",
    "tensor_parallel_size": "is set by `parallelism.tensor`",
    "pipeline_parallel_size": "is set by `parallelism.pipeline`",
    "data_parallel_*": "is what `replicas` and `autoscaling` are for",
    "prefill_context_parallel_size": "needs GPUs that `parallelism` does not count",
    **dict.fromkeys(
        ["distributed_executor_backend", "nnodes", "node_rank", "master_addr", "master_port"],
        _PLACED,
    ),
    "device_ids": "is Ray's to choose",
    "enable_lora": "is decided by `adapters`",
    "lora_modules": "is what `adapters` is for",
    "default_mm_loras": "is what `adapters` is for",
    "max_loras": "is set by `max_loaded_adapters`",
    "max_cpu_loras": "is set by `max_loaded_adapters`",
    **dict.fromkeys(
        ["host", "port", "uds", "api_key", "root_path", "ssl_*", "api_server_count", "headless"],
        _SERVED,
    ),
}


def _engine_arg(name: str) -> str:
    plain = name.strip("-").replace("-", "_")
    for pattern, why in _RESERVED_ARGS.items():
        if fnmatchcase(plain, pattern):
            raise ValueError(f"{why}: take it out of `engine_args`")
    if plain != name:
        raise ValueError(f"is written `{plain}` here")
    return name


class VllmEntry(Placed):
    """A model that vLLM runs."""

    engine: Literal["vllm"]
    """The engine that runs the model."""
    source: str = Field(min_length=1)
    """Name on the model hub, or path."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Maximum tokens of prompt and answer together; the model's own limit if unset."""
    engine_args: dict[Annotated[str, AfterValidator(_engine_arg)], JsonValue] = Field(
        default_factory=dict
    )
    """Any other vLLM argument, under vLLM's name with underscores."""

    @model_validator(mode="after")
    def _in_its_share(self) -> Self:
        share = self.engine_args.get("gpu_memory_utilization", 0)
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise conflict(
                f"should be a number, found {json.dumps(share)}",
                *("engine_args", "gpu_memory_utilization"),
            )
        if self.gpu_fraction < 1:
            self._check_memory(share)
        return self

    def _check_memory(self, share: float) -> None:
        if share > self.gpu_fraction:
            raise conflict(
                f"{share:g} is more than `gpu_fraction` {self.gpu_fraction:g}",
                *("engine_args", "gpu_memory_utilization"),
            )
        if "kv_cache_memory_bytes" in self.engine_args:
            raise conflict(
                "makes vLLM disregard its share of the memory, which `gpu_fraction`"
                f" {self.gpu_fraction:g} sets: use `gpu_memory_utilization`",
                *("engine_args", "kv_cache_memory_bytes"),
            )

    @property
    def gpu_memory_utilization(self) -> float | None:
        """The share of a GPU's memory that vLLM may take by default; None leaves it to vLLM."""
        if self.gpu_fraction == 1:
            return None
        return round(self.gpu_fraction * MEMORY_SHARE, 4)
