"""The hardware of an entry's engines, and the number of workers of each."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gateway.config.entry import BaseEntry
from gateway.config.references import KNOWN_BEFORE, Reference
from gateway.config.strict import Strict, field_error

ACCELERATOR_TYPES = frozenset(
    {"A10", "A100", "A100-40G", "A100-80G", "A10G", "B200", "B300", "GB200", "GB300", "GH200"}
    | {"H100", "H20", "H200", "K80", "L4", "L40S", "P100", "P4", "T4", "V100"}
    | {"AMD-Instinct-MI100", "AMD-Instinct-MI210", "AMD-Instinct-MI250X"}
    | {"AMD-Instinct-MI250X-MI250", "AMD-Instinct-MI300X-OAM"}
)
"""GPU types as Ray spells them: nodes have the resource `accelerator_type:<type>`."""


class Parallelism(Strict):
    """Number of workers of one replica: `tensor` times `pipeline`."""

    tensor: int = Field(default=1, ge=1)
    """Workers that share each layer, always on one node."""
    pipeline: int = Field(default=1, ge=1)
    """Stages, each with a part of the layers; they may run on different nodes."""

    @property
    def workers(self) -> int:
        """Worker processes of one replica; each has one GPU."""
        return self.tensor * self.pipeline


class Gpu(Strict):
    """Each worker runs on a GPU of its own."""

    kind: Literal["gpu"] = "gpu"
    """Kind of device; may be left out."""
    type: str | None = Field(default=None, min_length=1)
    """GPU type as Ray spells it (`H100`, `L40S`...); any type if unset."""
    per_node: int = Field(default=8, ge=1)
    """GPUs per node: decides whether a replica fits on one node."""

    @field_validator("type")
    @classmethod
    def _spelled_as_ray_does(cls, type_: str | None) -> str | None:
        if Reference.of(type_):
            raise ValueError(KNOWN_BEFORE)
        spelling = {known.lower(): known for known in ACCELERATOR_TYPES}
        known = spelling.get((type_ or "").lower(), type_)
        if known != type_:
            raise ValueError(f"should be spelled `{known}`")
        return type_


class Cpu(Strict):
    """Runs the workers on CPUs."""

    kind: Literal["cpu"] = "cpu"
    """Kind of device."""


def _expanded(accelerator: object) -> object:
    """Expand the shorthands `cpu`, `gpu` and a GPU type to the mapping they stand for."""
    if isinstance(accelerator, dict):
        return {"kind": "gpu", **accelerator}
    if isinstance(accelerator, str) and accelerator in ACCELERATOR_TYPES:
        return {"kind": "gpu", "type": accelerator}
    return {"kind": accelerator} if isinstance(accelerator, str) else accelerator


Accelerator = Annotated[Gpu | Cpu, Field(discriminator="kind"), BeforeValidator(_expanded)]


class PlacedEntry(BaseEntry):
    """Entry whose engines reserve resources of the cluster."""

    parallelism: Parallelism = Parallelism()
    """Number of workers of a replica."""
    accelerator: Accelerator = Gpu()
    """Device of each worker: a mapping, or `cpu`, `gpu`, or a GPU type such as `H100`."""
    gpu_fraction: float = Field(default=1, ge=0.01, le=1)
    """Share of one GPU and its memory for a replica; other replicas may use the rest."""
    cpus_per_worker: float = Field(default=1, gt=0)
    """Logical CPUs reserved for each worker."""

    @model_validator(mode="after")
    def _can_be_placed(self) -> Self:
        """Reject what cannot run: the workers of one stage are never on different nodes."""
        if isinstance(self.accelerator, Gpu):
            self._check_nodes(self.accelerator.per_node)
        elif self.parallelism.pipeline > 1:
            raise field_error("needs GPUs, not `accelerator: cpu`", "parallelism", "pipeline")
        if self.gpu_fraction < 1:
            self._check_gpu_fraction()
        return self

    def _check_gpu_fraction(self) -> None:
        if not isinstance(self.accelerator, Gpu):
            raise field_error("needs a GPU, not `accelerator: cpu`", "gpu_fraction")
        if self.parallelism.workers > 1:
            raise field_error(
                f"{self.gpu_fraction:g} allows one worker, but `parallelism` asks for"
                f" {self.parallelism.workers}",
                "gpu_fraction",
            )

    def _check_nodes(self, per_node: int) -> None:
        tensor, workers = self.parallelism.tensor, self.parallelism.workers
        if tensor > per_node:
            raise field_error(
                f"{tensor} needs {tensor} GPUs on one node, but `accelerator.per_node` is"
                f" {per_node}; use `parallelism.pipeline` to span several nodes",
                "parallelism",
                "tensor",
            )
        if workers > per_node and per_node % tensor:
            raise field_error(
                f"{tensor} does not divide `accelerator.per_node` {per_node}, so {workers} workers"
                " on several nodes would split a pipeline stage",
                "parallelism",
                "tensor",
            )
