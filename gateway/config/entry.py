"""Fields of every model entry, whatever its engine: the `args` of a model's Serve application."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, model_validator

from gateway.config.references import check_references
from gateway.config.scaling import MAX_REPLICAS, Autoscaling
from gateway.config.serving_options import ModelName, ServingOptions
from gateway.config.strict import field_error

DEFAULT_LOADED_ADAPTERS = 8
"""Default limit: engines reserve memory for each loaded adapter, used or not."""

RESERVED_ENV: Mapping[str, str] = {
    "CUDA_VISIBLE_DEVICES": "is set by Ray",
    "HIP_VISIBLE_DEVICES": "is set by Ray",
    "ROCR_VISIBLE_DEVICES": "is set by Ray",
    "RAY_ADDRESS": "is set by Ray",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "is set by the replica, which loads its `adapters` itself",
    "VLLM_API_KEY": "is set by the replica, which generates its own key",
    "VLLM_HOST_IP": "differs from node to node",
    "VLLM_RAY_BUNDLE_INDICES": "is set from the replica's placement",
    "VLLM_RAY_PER_WORKER_GPUS": "is set from the replica's placement",
    "VLLM_USE_RAY_V2_EXECUTOR_BACKEND": "must stay on: the older executor reorders the workers",
}
"""Variables that an entry's `env` must not set, and why."""


def _env_name(name: str) -> str:
    if name in RESERVED_ENV:
        raise ValueError(f"{RESERVED_ENV[name]}: remove it from `env`")
    if not name.isidentifier() or not name.isascii():
        raise ValueError("is not a valid environment variable name")
    return name


class BaseEntry(ServingOptions):
    """Fields of every model entry, whatever its engine."""

    model_config = ConfigDict(extra="forbid")

    name: ModelName
    """Name that clients send as `model`."""
    autoscaling: Autoscaling = Autoscaling()
    """The range of replicas, and how readily their number changes; excludes `replicas`."""
    replicas: int | None = Field(default=None, ge=1)
    """Fixed number of replicas; excludes `autoscaling`."""
    env: dict[Annotated[str, AfterValidator(_env_name)], str] = Field(default_factory=dict)
    """Environment variables of the engine. Write secrets as `env:NAME` or `file:PATH`."""
    drain_timeout_s: float = Field(default=300, gt=0)
    """Seconds that a stopping replica gives its running requests to finish."""
    hang_timeout_s: float = Field(default=30, ge=5)
    """Seconds after which a replica that no longer responds is killed, and replaced. A step of the
    engine may take longer, as far as its measured speed explains that."""
    max_loaded_adapters: int | None = Field(default=None, ge=1)
    """Adapters that a replica keeps loaded; if unset, all of them, up to 8. Loading another one
    unloads the least recently used."""

    @model_validator(mode="after")
    def _has_valid_references(self, info: ValidationInfo) -> Self:
        check_references(self.model_dump(), info)
        return self

    @model_validator(mode="after")
    def _has_possible_environment(self) -> Self:
        for name, value in self.env.items():
            if "\0" in value:
                raise field_error("must not hold a NUL character", "env", name)
        return self

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if self.replicas is not None and "autoscaling" in self.model_fields_set:
            raise field_error(
                "cannot be combined with `autoscaling`: remove one of them", "replicas"
            )
        if self.max_replicas > MAX_REPLICAS:
            path = ("autoscaling", "max") if self.replicas is None else ("replicas",)
            raise field_error(f"{self.max_replicas} is more than {MAX_REPLICAS}", *path)
        return self

    @model_validator(mode="after")
    def _scales_before_it_rejects(self) -> Self:
        target_s, limit_s = self.autoscaling.max_wait_s, self.queue.max_wait_s
        adds_replicas = self.max_replicas > max(1, self.min_replicas)
        if adds_replicas and self.queue.max_requests and target_s > limit_s:
            limit = f"`queue.max_wait_s` {limit_s:g}"
            message = f"{target_s:g} is more than {limit}, so no wait would ever add a replica"
            raise field_error(message, "autoscaling", "max_wait_s")
        return self

    @model_validator(mode="after")
    def _has_distinct_adapters(self) -> Self:
        seen = {self.name: "the model's own name"}
        for i, adapter in enumerate(self.adapters):
            if adapter.name in seen:
                message = f"`{adapter.name}` is {seen[adapter.name]}"
                raise field_error(message, "adapters", i, "name")
            seen[adapter.name] = f"also the name of adapters[{i}]"
        if self.max_loaded_adapters is not None and not self.adapters:
            raise field_error("has no effect without `adapters`", "max_loaded_adapters")
        return self

    @property
    def loaded_adapters_limit(self) -> int:
        """Number of adapters that a replica keeps loaded."""
        return min(len(self.adapters), self.max_loaded_adapters or DEFAULT_LOADED_ADAPTERS)

    @property
    def min_replicas(self) -> int:
        """Minimum number of replicas."""
        return self.autoscaling.min if self.replicas is None else self.replicas

    @property
    def max_replicas(self) -> int:
        """Maximum number of replicas."""
        return self.autoscaling.max if self.replicas is None else self.replicas
