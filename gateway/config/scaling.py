"""Autoscaling settings of a model."""

from typing import Self

from pydantic import Field, model_validator

from gateway.config.strict import Strict, field_error


class Autoscaling(Strict):
    """Range of the number of replicas, and how it follows the load."""

    min: int = Field(default=1, ge=0)
    """Minimum number of replicas; with 0, an idle model stops until a request starts it."""
    max: int = Field(default=1, ge=1)
    """Maximum number of replicas."""
    target_utilization: float = Field(default=0.7, gt=0, le=1)
    """Share of a replica's capacity (sequences, KV cache, prefill) that should be in use before
    another replica is added."""
    max_wait_s: float = Field(default=2, gt=0)
    """Seconds that a request should wait at most before a replica is added. It must not exceed
    `queue.max_wait_s`, after which requests are rejected, and should be well below it."""
    scale_down_delay_s: float = Field(default=300, ge=0)
    """Seconds of lower load before a replica is removed; never less than twice a start takes."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise field_error(f"{self.min} is more than `max` {self.max}", "min")
        return self
