"""Gateway config: names, limits and access, in the Router's `user_config`."""

from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gateway.config.references import Reference, check_references
from gateway.config.strict import field_errors
from gateway.config.traffic_rules import TrafficRules

MIN_KEY_LENGTH = 16
"""Least number of characters in an access key."""


class GatewayConfig(TrafficRules):
    """How requests reach the models; `serve deploy` applies changes without a restart."""

    max_body_mb: float = Field(default=32, gt=0)
    """Maximum size of a request body, in megabytes (2**20 bytes)."""
    admin_key: str | None = Field(default=None, repr=False)
    """Bearer token for the routes under `/gateway`; write it as `env:NAME` or `file:PATH`, which
    each router reads. If unset, these routes exist only while the gateway listens on loopback
    alone."""

    @field_validator("admin_key")
    @classmethod
    def _is_strong(cls, admin_key: str | None) -> str | None:
        if admin_key is not None and not Reference.of(admin_key):
            _check_key(admin_key)
        return admin_key

    @model_validator(mode="after")
    def _has_valid_references(self, info: ValidationInfo) -> Self:
        check_references(self.model_dump(), info)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if errors := list(self.contradictions()):
            raise field_errors(errors)
        return self


def _check_key(key: str) -> str:
    if len(key) < MIN_KEY_LENGTH:
        raise ValueError(f"must have at least {MIN_KEY_LENGTH} characters")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("must be printable ASCII, because it is sent in an HTTP header")
    return key
