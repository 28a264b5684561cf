"""The part of a model entry that routers go by."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from gateway.config.policy_names import DEFAULT_POLICY, PolicyName
from gateway.config.strict import Strict, check_name

Name = Annotated[str, Field(max_length=256), AfterValidator(check_name)]
"""What clients put in `model`."""


class RoutingOptions(Strict):
    """How requests are spread over a model's replicas."""

    policy: PolicyName = DEFAULT_POLICY
    """The default is what to use; the others are there to compare with. `prefix-affinity` and
    `cache-aware` remember what they sent: up to 100 MB a replica in each router."""


class QueueOptions(Strict):
    """How long requests wait in a router while no engine has room for them, and how many."""

    max_wait_s: float = Field(default=5, gt=0)
    """Seconds a request may wait; one that would wait longer is rejected."""
    batch_max_wait_s: float = Field(default=600, gt=0)
    """The same for requests sent with `x-gateway-priority: batch`."""
    max_requests: int = Field(default=1000, ge=0)
    """Requests that may wait in one router at the same time; with 0 none does."""


class Adapter(Strict):
    """A LoRA adapter: a model of its own to clients, run by the base model's engines."""

    name: Name
    """What clients put in `model`."""
    source: str = Field(min_length=1)
    """A name on the model hub, or a path."""


class ServingOptions(Strict):
    """How requests reach a model's replicas; of other fields a router knows nothing."""

    model_config = ConfigDict(extra="ignore")

    routing: RoutingOptions = RoutingOptions()
    """How a replica is chosen for each request."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds from a request's arrival that its answer may take; any time where unset."""
    queue: QueueOptions = QueueOptions()
    """How requests wait for engines that are full."""
    adapters: list[Adapter] = Field(default_factory=list)
    """LoRA adapters on top of the model, each with a name of its own."""
    cold_start_timeout_s: float = Field(default=300, gt=0)
    """Seconds that a request waits for an engine to start where none runs."""
    when_cold: Literal["hold", "fallback"] = "hold"
    """Where no engine runs: `hold` the request until one does, or send it to the `fallback`s that
    the gateway config names while one starts."""
