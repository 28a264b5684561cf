"""Part of a model entry that routers read."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from gateway.config.strict import Strict


def _printable_without_spaces(name: str) -> str:
    if not name or not name.isprintable() or any(c.isspace() for c in name):
        raise ValueError("must be non-empty, without spaces or control characters")
    return name


ModelName = Annotated[str, Field(max_length=256), AfterValidator(_printable_without_spaces)]
"""Name that clients put in `model`."""


class RoutingOptions(Strict):
    """How requests are distributed over a model's replicas."""

    policy: Literal[
        "marginal", "least-pending", "round-robin", "prefix-affinity", "cache-aware"
    ] = "marginal"
    """Routing policy. Use the default; the others are for comparison. `prefix-affinity` and
    `cache-aware` remember the prompts they sent: up to 100 MB per replica in each router."""


class QueueOptions(Strict):
    """Limits on the requests that wait in a router while no engine has room for them."""

    max_wait_s: float = Field(default=5, gt=0)
    """Seconds that a request may wait; one that would wait longer is rejected."""
    batch_max_wait_s: float = Field(default=600, gt=0)
    """The same for requests sent with `x-gateway-priority: batch`."""
    max_requests: int = Field(default=1000, ge=0)
    """Requests that may wait in one router at the same time; 0 disables the queue."""


class Adapter(Strict):
    """LoRA adapter: to clients a model of its own, run by the base model's engines."""

    name: ModelName
    """Name that clients put in `model`."""
    source: str = Field(min_length=1)
    """Name on the model hub, or a path."""


class ServingOptions(Strict):
    """How requests reach a model's replicas; routers ignore the entry's other fields."""

    model_config = ConfigDict(extra="ignore")

    routing: RoutingOptions = RoutingOptions()
    """How a replica is chosen for each request."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds from a request's arrival to the end of its answer; unset, no limit."""
    queue: QueueOptions = QueueOptions()
    """How requests wait while all engines are full."""
    adapters: list[Adapter] = Field(default_factory=list)
    """LoRA adapters of the model, each with its own name."""
    cold_start_timeout_s: float = Field(default=300, gt=0)
    """Seconds that a request waits for an engine to start if none runs."""
    when_cold: Literal["hold", "fallback"] = "hold"
    """What to do with a request if no engine runs: `hold` it until one has started, or send it to
    the model's `fallback`s in the gateway config while one starts."""
