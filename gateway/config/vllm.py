"""Entry of a model that vLLM runs."""

from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, ValidationInfo, model_validator

from gateway.config.cache_isolation import CacheIsolation, shared_caches
from gateway.config.engine_arguments import applicable_table, resolved_number
from gateway.config.hardware import PlacedEntry
from gateway.config.media import MediaOptions
from gateway.config.references import RESOLVED, Reference
from gateway.config.strict import FieldError, field_error, field_errors, format_value

MEMORY_UTILIZATION = 0.92
"""Share of its fraction of GPU memory that an engine uses: vLLM's default for a whole GPU."""

GRAMMAR_TIMEOUT_S = 20.0
"""Default time for the compilation of a grammar."""

_SET_BY_PLACEMENT = "is chosen from `parallelism` and `accelerator`"
_SET_BY_SERVER = "is decided by the replica's own HTTP server"
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
        _SET_BY_PLACEMENT,
    ),
    "device_ids": "is chosen by Ray",
    "enable_lora": "is decided by `adapters`",
    "lora_modules": "is what `adapters` is for",
    "default_mm_loras": "is what `adapters` is for",
    "max_loras": "is set by `max_loaded_adapters`",
    "max_cpu_loras": "is set by `max_loaded_adapters`",
    "allowed_media_domains": "is set by `media.domains`",
    "allowed_local_media_path": "would let clients read files of the engine's machine",
    **dict.fromkeys(
        ["host", "port", "uds", "api_key", "root_path", "ssl_*", "api_server_count", "headless"],
        _SET_BY_SERVER,
    ),
}


def _engine_arg(name: str) -> str:
    plain = name.strip("-").replace("-", "_")
    for pattern, why in _RESERVED_ARGS.items():
        if fnmatchcase(plain, pattern):
            raise ValueError(f"{why}: remove it from `engine_args`")
    if plain != name:
        raise ValueError(f"should be written `{plain}`")
    return name


class VllmEntry(PlacedEntry):
    """Model that vLLM runs."""

    engine: Literal["vllm"]
    """The engine that runs the model."""
    source: str = Field(min_length=1)
    """Name on the model hub, or path."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Maximum tokens of prompt and answer together; the model's own limit if unset."""
    media: MediaOptions = MediaOptions()
    """What engines fetch for clients: by default nothing."""
    grammar_timeout_s: float = Field(default=GRAMMAR_TIMEOUT_S, gt=0)
    """Seconds on a core that the compilation of a JSON schema, regex or grammar may take; a request
    with one that needs longer gets 400."""
    cache_isolation: CacheIsolation = "required"
    """What keeps cached prompts of one project from others. `required`: vLLM's salts do, and
    `engine_args` may add no cache of which that is not known, such as some KV connectors.
    `trusted`: what they add does so, too, for all that you know. `none`: nothing does; only
    projects whose `cache_scope` is `all` may use the model."""
    engine_args: dict[Annotated[str, AfterValidator(_engine_arg)], JsonValue] = Field(
        default_factory=dict
    )
    """Any other vLLM argument, under vLLM's name with underscores."""

    @model_validator(mode="after")
    def _has_known_arguments(self) -> Self:
        table = applicable_table()
        found = table.mistakes(self.engine_args) if table else ()
        if errors := [FieldError(("engine_args", *e.path), e.message) for e in found]:
            raise field_errors(errors)
        return self

    @model_validator(mode="after")
    def _has_private_caches(self) -> Self:
        found = () if self.cache_isolation != "required" else shared_caches(self.engine_args)
        if errors := [FieldError(("engine_args", *e.path), e.message) for e in found]:
            raise field_errors(errors)
        return self

    @model_validator(mode="after")
    def _fits_gpu_fraction(self, info: ValidationInfo) -> Self:
        share = self.engine_args.get("gpu_memory_utilization", 0)
        if Reference.of(share):
            return self  # checked where it is resolved
        number = resolved_number(share) if info.context == RESOLVED else share
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise field_error(
                f"should be a number, found {format_value(share)}",
                *("engine_args", "gpu_memory_utilization"),
            )
        if self.gpu_fraction < 1:
            self._check_memory(number)
        return self

    def _check_memory(self, share: float) -> None:
        if share > self.gpu_fraction:
            raise field_error(
                f"{share:g} is more than `gpu_fraction` {self.gpu_fraction:g}",
                *("engine_args", "gpu_memory_utilization"),
            )
        if "kv_cache_memory_bytes" in self.engine_args:
            raise field_error(
                "makes vLLM ignore the memory limit set by `gpu_fraction`"
                f" {self.gpu_fraction:g}: use `gpu_memory_utilization` instead",
                *("engine_args", "kv_cache_memory_bytes"),
            )

    @property
    def gpu_memory_utilization(self) -> float | None:
        """Share of a GPU's memory that vLLM uses by default; None leaves it to vLLM."""
        if self.gpu_fraction == 1:
            return None
        return round(self.gpu_fraction * MEMORY_UTILIZATION, 4)
