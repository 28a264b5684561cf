"""What a configuration may say: how to run each model, and the gateway's own settings.

An entry is the `args` of a model's Serve application, `GatewayConfig` the Router's `user_config`.
Whatever is not named here is refused; `gateway.configfile` turns a refusal into lines for people.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gateway.errors import ConfigError

KEY_LENGTH = 16
"""Characters of an access key at least."""
REFERENCE = "env:"
"""What a key begins with that stands in an environment variable."""
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
_RESERVED_ENV = {
    "CUDA_VISIBLE_DEVICES": "is set by Ray",
    "HIP_VISIBLE_DEVICES": "is set by Ray",
    "ROCR_VISIBLE_DEVICES": "is set by Ray",
    "RAY_ADDRESS": "is set by Ray",
    "VLLM_API_KEY": "is set by the replica, which makes its own key",
    "VLLM_HOST_IP": "differs from node to node",
    "VLLM_RAY_BUNDLE_INDICES": "is set from the replica's placement",
    "VLLM_RAY_PER_WORKER_GPUS": "is set from the replica's placement",
    "VLLM_USE_RAY_V2_EXECUTOR_BACKEND": "must stay on: the older executor reorders the workers",
}


def _conflict(message: str, *at: str) -> PydanticCustomError:
    """Make the error of several fields together, reported at the one named by `at`."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "at": at})


def _engine_arg(name: str) -> str:
    plain = name.strip("-").replace("-", "_")
    for pattern, why in _RESERVED_ARGS.items():
        if fnmatchcase(plain, pattern):
            raise ValueError(f"{why}: take it out of `engine_args`")
    if plain != name:
        raise ValueError(f"is written `{plain}` here")
    return name


def _env_name(name: str) -> str:
    if name in _RESERVED_ENV:
        raise ValueError(f"{_RESERVED_ENV[name]}: take it out of `env`")
    if not name.isidentifier() or not name.isascii():
        raise ValueError("is no name of an environment variable")
    return name


class _Strict(BaseModel):
    """Frozen, takes no field it does not know, and turns no value into another type."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Autoscaling(_Strict):
    """How many replicas, and how readily that number changes."""

    min: int = Field(default=1, ge=0)
    """Replicas that always run; 0 lets the model sleep until a request wakes it."""
    max: int = Field(default=1, ge=1)
    """Replicas at most."""
    target_utilization: float = Field(default=0.7, gt=0, le=1)
    """How full a replica should be, as a share of the sequences it can run, before one is added."""
    scale_down_delay_s: float = Field(default=300, ge=0)
    """Seconds of lower load before a replica is taken away."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise _conflict(f"{self.min} is more than `max` {self.max}", "min")
        return self


class Routing(_Strict):
    """How requests are spread over a model's replicas."""

    policy: Literal[
        "marginal", "least-pending", "round-robin", "prefix-affinity", "cache-aware"
    ] = "marginal"
    """The default is what to use; the others are there to compare with. `prefix-affinity` and
    `cache-aware` remember what they sent: up to 100 MB a replica in each router."""


class Queue(_Strict):
    """How long requests wait in a router while no engine has room for them, and how many."""

    max_wait_s: float = Field(default=5, gt=0)
    """Seconds a request may wait; one that would wait longer is rejected."""
    batch_max_wait_s: float = Field(default=600, gt=0)
    """The same for requests sent with `x-gateway-priority: batch`."""
    max_requests: int = Field(default=1000, ge=0)
    """Requests that may wait in one router at the same time; with 0 none does."""


class _Entry(_Strict):
    """What every model entry has, whatever the engine."""

    name: str = Field(max_length=256)
    """What clients put in `model`."""
    autoscaling: Autoscaling = Autoscaling()
    """Between how many replicas, and how readily; excludes `replicas`."""
    replicas: int | None = Field(default=None, ge=1)
    """A fixed number of replicas; excludes `autoscaling`."""
    routing: Routing = Routing()
    """How a replica is chosen for each request."""
    env: dict[Annotated[str, AfterValidator(_env_name)], str] = {}
    """The engine's environment variables."""
    drain_timeout_s: float = Field(default=300, gt=0)
    """Seconds that running requests may take to finish once the replica is told to stop."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds from a request's arrival that its answer may take; any time where unset."""
    queue: Queue = Queue()
    """How requests wait for engines that are full."""

    @field_validator("name")
    @classmethod
    def _nameable(cls, name: str) -> str:
        if not name or not name.isprintable() or any(c.isspace() for c in name):
            raise ValueError("must be non-empty, without spaces or control characters")
        return name

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.replicas is not None and "autoscaling" in self.model_fields_set:
            raise _conflict("excludes `autoscaling`: keep one of them", "replicas")
        return self

    @property
    def min_replicas(self) -> int:
        """Replicas that always run."""
        return self.autoscaling.min if self.replicas is None else self.replicas

    @property
    def max_replicas(self) -> int:
        """Replicas at most."""
        return self.autoscaling.max if self.replicas is None else self.replicas


class Parallelism(_Strict):
    """Over how many workers one replica is spread: `tensor` times `pipeline`."""

    tensor: int = Field(default=1, ge=1)
    """Workers that share each layer; always on one node."""
    pipeline: int = Field(default=1, ge=1)
    """Stages that share out the layers; may lie on different nodes."""

    @property
    def workers(self) -> int:
        """Worker processes of one replica; each has one GPU."""
        return self.tensor * self.pipeline


class Gpu(_Strict):
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


class Cpu(_Strict):
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


class VllmEntry(_Entry):
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
    engine_args: dict[Annotated[str, AfterValidator(_engine_arg)], JsonValue] = {}
    """Any other argument of vLLM, by vLLM's name with underscores."""

    @model_validator(mode="after")
    def _placeable(self) -> Self:
        """Refuse what cannot run: the workers of one stage never lie on different nodes."""
        if isinstance(self.accelerator, Gpu):
            self._check_nodes(self.accelerator.per_node)
        elif self.parallelism.pipeline > 1:
            raise _conflict("needs GPUs, not `accelerator: cpu`", "parallelism", "pipeline")
        return self

    def _check_nodes(self, per_node: int) -> None:
        tensor, workers = self.parallelism.tensor, self.parallelism.workers
        if tensor > per_node:
            raise _conflict(
                f"{tensor} needs {tensor} GPUs on one node, `accelerator.per_node` is {per_node};"
                " use `parallelism.pipeline` to go over several nodes",
                "parallelism",
                "tensor",
            )
        if workers > per_node and per_node % tensor:
            raise _conflict(
                f"{tensor} does not divide `accelerator.per_node` {per_node}, so that {workers}"
                " workers on several nodes would tear a pipeline stage apart",
                "parallelism",
                "tensor",
            )


class Simulation(_Strict):
    """How fast and how large a simulated replica is.

    A step of the engine takes `step_s`, and more for every prompt token and sequence in it.
    """

    instant: bool = False
    """Answer at once, whatever the speeds below say."""
    step_s: float = Field(default=0.012, gt=0)
    """Seconds of a step; a sequence gets one token in each."""
    step_s_per_prefill_token: float = Field(default=0.0001, ge=0)
    """Seconds that every prompt token adds to the step that reads it."""
    step_s_per_sequence: float = Field(default=0.0002, ge=0)
    """Seconds that every sequence being answered adds to a step."""
    step_tokens: int = Field(default=4096, ge=1)
    """Tokens that one step reads and makes at most: longer prompts are read in chunks."""
    output_tokens: int = Field(default=64, ge=1)
    """Length of an answer where the client sets none."""
    kv_tokens: int = Field(default=65_536, ge=1)
    """Tokens the KV cache has room for."""
    block_size: int = Field(default=16, ge=1)
    """Tokens in one KV block."""
    max_sequences: int = Field(default=64, ge=1)
    """Sequences that run at the same time."""
    max_model_len: int = Field(default=32_768, ge=2)
    """Tokens of prompt and answer together."""
    time_scale: float = Field(default=1.0, gt=0)
    """How many of these seconds pass in one second of the clock: above 1 all is faster."""
    error_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests answered with a 500: on one replica always the same ones, by
    `x-request-id`; on another replica, others."""
    reset_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of answers that break off with their connection, a quarter of them before the first
    byte; which ones and where, as above."""
    hang_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of requests that get no byte until their client leaves; which ones, as above."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for field in ("block_size", "max_model_len"):
            if getattr(self, field) > self.kv_tokens:
                raise _conflict(
                    f"{getattr(self, field)} is more than `kv_tokens` {self.kv_tokens}", field
                )
        if round(self.error_rate + self.reset_rate + self.hang_rate, 9) > 1:
            raise _conflict("is more than `error_rate` and `reset_rate` leave", "hang_rate")
        if self.step_tokens < self.max_sequences:
            raise _conflict(
                f"{self.step_tokens} is less than `max_sequences` {self.max_sequences}, each of"
                " which takes a token of every step",
                "step_tokens",
            )
        return self


class SimEntry(_Entry):
    """A model that is only simulated, to rehearse routing, scaling and failures without weights."""

    engine: Literal["sim"]
    cpus_per_worker: float = Field(default=0.1, gt=0)
    """Logical CPUs that a replica reserves."""
    simulation: Simulation = Simulation()
    """How fast and how large a replica is."""


ModelEntry = Annotated[VllmEntry | SimEntry, Field(discriminator="engine")]


class GatewayConfig(_Strict):
    """How requests reach the models; changed in place by `serve deploy`."""

    max_body_mb: float = Field(default=32, gt=0)
    """Megabytes (2**20 bytes) that the body of a request may have."""
    admin_key: str | None = None
    """What operators send as bearer token to the routes under `/gateway`, or `env:NAME`: that
    environment variable of the Router holds it. Unset, these routes answer only while the gateway
    listens on loopback alone."""

    @field_validator("admin_key")
    @classmethod
    def _sound(cls, admin_key: str | None) -> str | None:
        if admin_key is not None and not admin_key.startswith(REFERENCE):
            _check_key(admin_key)
        return admin_key

    def resolved_admin_key(self, environ: Mapping[str, str]) -> str | None:
        """The key itself, from `environ` where it is a reference.

        Raises:
            ConfigError: the variable it names holds no sound key.
        """
        key = self.admin_key
        if key is None or not key.startswith(REFERENCE):
            return key
        name = key.removeprefix(REFERENCE)
        try:
            return _check_key(environ.get(name, ""))
        except ValueError as error:
            raise ConfigError(
                f"gateway: admin_key: environment variable {name!r}: {error}"
            ) from None


def _check_key(key: str) -> str:
    if len(key) < KEY_LENGTH:
        raise ValueError(f"must have at least {KEY_LENGTH} characters")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("must be printable ASCII, as HTTP headers are")
    return key
