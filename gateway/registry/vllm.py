"""Entries of models that vLLM runs."""

from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from gateway.registry.entry import Entry
from gateway.registry.strict import Strict, conflict

ACCELERATOR_TYPES = frozenset(
    {"A10", "A100", "A100-40G", "A100-80G", "A10G", "B200", "B300", "GB200", "GB300", "GH200"}
    | {"H100", "H20", "H200", "K80", "L4", "L40S", "P100", "P4", "T4", "V100"}
    | {"AMD-Instinct-MI100", "AMD-Instinct-MI210", "AMD-Instinct-MI250X"}
    | {"AMD-Instinct-MI250X-MI250", "AMD-Instinct-MI300X-OAM"}
)
"""GPU types as Ray spells them: a node has the resource `accelerator_type:<type>` of its GPUs."""

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


class Parallelism(Strict):
    """Over how many workers one replica is spread: `tensor` times `pipeline`."""

    tensor: int = Field(default=1, ge=1)
    """Workers that share each layer; always on one node."""
    pipeline: int = Field(default=1, ge=1)
    """Stages that share out the layers; may lie on different nodes."""

    @property
    def workers(self) -> int:
        """Worker processes of one replica; each has one GPU."""
        return self.tensor * self.pipeline


class Gpu(Strict):
    """Workers run on GPUs, one each."""

    kind: Literal["gpu"] = "gpu"
    type: str | None = Field(default=None, min_length=1)
    """The GPU's type as Ray calls it (`H100`, `L40S`...); any where unset."""
    per_node: int = Field(default=8, ge=1)
    """GPUs of one node: what decides whether a replica fits on one."""

    @field_validator("type")
    @classmethod
    def _spelled_as_ray_does(cls, type_: str | None) -> str | None:
        spelling = {known.lower(): known for known in ACCELERATOR_TYPES}
        known = spelling.get((type_ or "").lower(), type_)
        if known != type_:
            raise ValueError(f"is spelled `{known}`")
        return type_


class Cpu(Strict):
    """Workers run on the CPU."""

    kind: Literal["cpu"] = "cpu"


def _expanded(accelerator: object) -> object:
    """`cpu`, `gpu` and a GPU type's name stand for the mapping they abbreviate."""
    if isinstance(accelerator, dict):
        return {"kind": "gpu", **accelerator}
    if isinstance(accelerator, str) and accelerator in ACCELERATOR_TYPES:
        return {"kind": "gpu", "type": accelerator}
    return {"kind": accelerator} if isinstance(accelerator, str) else accelerator


Accelerator = Annotated[Gpu | Cpu, Field(discriminator="kind"), BeforeValidator(_expanded)]


class VllmEntry(Entry):
    """A model that vLLM runs."""

    engine: Literal["vllm"]
    source: str = Field(min_length=1)
    """A name on the model hub, or a path."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer together; the model's own limit where unset."""
    parallelism: Parallelism = Parallelism()
    """Over how many workers a replica is spread."""
    accelerator: Accelerator = Gpu()
    """What the workers run on: a mapping, or `cpu`, `gpu`, or a GPU type such as `H100`."""
    cpus_per_worker: float = Field(default=1, gt=0)
    """Logical CPUs that each worker reserves."""
    engine_args: dict[Annotated[str, AfterValidator(_engine_arg)], JsonValue] = Field(
        default_factory=dict
    )
    """Any other argument of vLLM, by vLLM's name with underscores."""

    @model_validator(mode="after")
    def _placeable(self) -> Self:
        """Refuse what cannot run: the workers of one stage never lie on different nodes."""
        if isinstance(self.accelerator, Gpu):
            self._check_nodes(self.accelerator.per_node)
        elif self.parallelism.pipeline > 1:
            raise conflict("needs GPUs, not `accelerator: cpu`", "parallelism", "pipeline")
        return self

    def _check_nodes(self, per_node: int) -> None:
        tensor, workers = self.parallelism.tensor, self.parallelism.workers
        if tensor > per_node:
            raise conflict(
                f"{tensor} needs {tensor} GPUs on one node, `accelerator.per_node` is {per_node};"
                " use `parallelism.pipeline` to go over several nodes",
                "parallelism",
                "tensor",
            )
        if workers > per_node and per_node % tensor:
            raise conflict(
                f"{tensor} does not divide `accelerator.per_node` {per_node}, so that {workers}"
                " workers on several nodes would tear a pipeline stage apart",
                "parallelism",
                "tensor",
            )
