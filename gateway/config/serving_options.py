"""The part of a model entry that routers use."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from gateway.config.limits import Limits
from gateway.config.policy_names import DEFAULT_POLICY, PolicyName
from gateway.config.references import KNOWN_BEFORE, Reference
from gateway.config.strict import Strict


def _printable_without_spaces(name: str) -> str:
    if Reference.of(name):
        raise ValueError(KNOWN_BEFORE)
    if not name or not name.isprintable() or any(c.isspace() for c in name):
        raise ValueError("must be non-empty, without spaces or control characters")
    return name


ModelName = Annotated[str, Field(max_length=256), AfterValidator(_printable_without_spaces)]
"""Name that clients send as `model`."""


class RoutingOptions(Strict):
    """How requests are distributed over a model's replicas."""

    policy: PolicyName = DEFAULT_POLICY
    """Use the default; the others are for comparison. `prefix-affinity` and `cache-aware` remember
    what they sent, which takes up to 100 MB per replica in each router."""


class QueueOptions(Strict):
    """How many requests wait in a router while no engine has room for them, and how long."""

    max_wait_s: float = Field(default=5, gt=0)
    """Seconds a request may wait; a request that would wait longer is rejected."""
    batch_max_wait_s: float = Field(default=600, gt=0)
    """The same limit for requests with `x-gateway-priority: batch`."""
    max_requests: int = Field(default=1000, ge=0)
    """Requests that may wait in one router at the same time; with 0, none waits for room, and one
    may wait for a model to start."""


class Adapter(Strict):
    """A LoRA adapter: a model of its own for clients, run by the base model's engines."""

    name: ModelName
    """Name that clients send as `model`."""
    source: str = Field(min_length=1)
    """Name on the model hub, or path."""


class ServingOptions(Strict):
    """How requests reach a model's replicas: the fields that routers read."""

    model_config = ConfigDict(extra="ignore")

    routing: RoutingOptions = RoutingOptions()
    """How a replica is chosen for each request."""
    timeout_s: float | None = Field(default=3600, gt=0)
    """Seconds that a whole answer may take, from the request's arrival; `null` for no limit."""
    queue: QueueOptions = QueueOptions()
    """How requests wait when all engines are full."""
    limits: Limits = Limits()
    """What one request may ask for."""
    adapters: list[Adapter] = Field(default_factory=list)
    """LoRA adapters of the model, each with its own name."""
    cold_start_timeout_s: float = Field(default=300, gt=0)
    """Seconds that a request waits for an engine to start when none is running."""
    when_cold: Literal["hold", "fallback"] = "hold"
    """When no engine is running: `hold` requests until one is, or start one and send requests to
    the model's fallbacks meanwhile (`fallback`)."""
