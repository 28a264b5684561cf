"""Autoscaling settings of a model."""

from typing import Self

from pydantic import Field, model_validator

from gateway.config.strict import Strict, field_error

MAX_REPLICAS = 10_000
"""Replicas of one model: more are a slip of the keyboard."""


class Autoscaling(Strict):
    """How many replicas a model has, and how readily that number changes."""

    min: int = Field(default=1, ge=0)
    """Replicas that always run; with 0, the model scales to zero until a request starts it."""
    max: int = Field(default=1, ge=1)
    """Maximum number of replicas."""
    target_utilization: float = Field(default=0.7, gt=0, le=1)
    """Utilization of a replica (sequences, KV cache, prefill) above which another one is added."""
    max_wait_s: float = Field(default=2, gt=0)
    """Seconds of waiting above which a replica is added. At most `queue.max_wait_s`, after which
    requests are rejected; keep it well below."""
    scale_down_delay_s: float = Field(default=300, ge=0)
    """Seconds of lower load before a replica is removed; at least twice the start-up time."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise field_error(f"{self.min} is more than `max` {self.max}", "min")
        return self
