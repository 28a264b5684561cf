"""How many replicas a model has."""

from typing import Self

from pydantic import Field, model_validator

from gateway.config.strict import Strict, conflict


class Autoscaling(Strict):
    """How many replicas, and how readily that number changes."""

    min: int = Field(default=1, ge=0)
    """Replicas that always run; 0 lets the model sleep until a request wakes it."""
    max: int = Field(default=1, ge=1)
    """Replicas at most."""
    target_utilization: float = Field(default=0.7, gt=0, le=1)
    """How full a replica should be, as a share of what it can do at the same time (sequences, KV
    cache, prefill), before one is added."""
    max_wait_s: float = Field(default=2, gt=0)
    """Seconds that a request should wait for its turn at most, before a replica is added; no more
    than `queue.max_wait_s`, after which requests are rejected, and better less."""
    scale_down_delay_s: float = Field(default=300, ge=0)
    """Seconds of lower load before a replica is taken away; at least twice what a start takes."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise conflict(f"{self.min} is more than `max` {self.max}", "min")
        return self
