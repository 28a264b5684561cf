"""Gateway config: names, limits and access, in the Router's `user_config`."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, field_validator, model_validator

from gateway.config.strict import field_errors
from gateway.config.traffic_rules import TrafficRules
from gateway.errors import ConfigError

MIN_KEY_LENGTH = 16
"""Least number of characters in an access key."""
ENV_PREFIX = "env:"
"""Start of a key that names an environment variable instead."""


class GatewayConfig(TrafficRules):
    """How requests reach the models; `serve deploy` applies changes without a restart."""

    max_body_mb: float = Field(default=32, gt=0)
    """Maximum size of a request body, in megabytes (2**20 bytes)."""
    max_text_body_mb: float = Field(default=16, gt=0)
    """The same limit for routes whose bodies are texts, such as `/v1/completions`, `/v1/embeddings`
    and `/tokenize`; no more than `max_body_mb`."""
    admin_key: str | None = None
    """Bearer token for the routes under `/gateway`, or `env:NAME` to read it from that environment
    variable of the Router. If unset, these routes exist only while the gateway listens on loopback
    alone."""

    @field_validator("admin_key")
    @classmethod
    def _is_strong(cls, admin_key: str | None) -> str | None:
        if admin_key is not None and not admin_key.startswith(ENV_PREFIX):
            _check_key(admin_key)
        return admin_key

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if errors := list(self.contradictions()):
            raise field_errors(errors)
        return self

    def resolved_admin_key(self, environ: Mapping[str, str]) -> str | None:
        """Return the key, read from `environ` if the config names an environment variable.

        Raises:
            ConfigError: the variable is unset, or its key is too short or not printable ASCII.
        """
        key = self.admin_key
        if key is None or not key.startswith(ENV_PREFIX):
            return key
        name = key.removeprefix(ENV_PREFIX)
        try:
            return _check_key(environ.get(name, ""))
        except ValueError as error:
            raise ConfigError(
                f"gateway: admin_key: environment variable {name!r}: {error}"
            ) from None


def _check_key(key: str) -> str:
    if len(key) < MIN_KEY_LENGTH:
        raise ValueError(f"must have at least {MIN_KEY_LENGTH} characters")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("must be printable ASCII, because it is sent in an HTTP header")
    return key
