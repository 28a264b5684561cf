"""Gateway config: names, limits and access, in the Router's `user_config`."""

from collections.abc import Mapping
from ipaddress import ip_network
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
    admin_key: str | None = None
    """Bearer token for the routes under `/gateway`, or `env:NAME` to read it from that environment
    variable of the Router. If unset, these routes do not exist, but for `open_on_loopback`."""
    open_on_loopback: bool = False
    """Without an `admin_key`, opens the routes under `/gateway` to whoever is on the same machine:
    the gateway must listen on loopback alone, and a request must name it by a loopback address and
    must not come through another proxy. For development."""
    trusted_proxies: list[str] = Field(default_factory=list)
    """Addresses or networks (`10.0.0.0/8`) of load balancers in front, whose `x-forwarded-for` is
    believed. The client is the last address there that is not itself one of these."""

    @field_validator("admin_key")
    @classmethod
    def _is_strong(cls, admin_key: str | None) -> str | None:
        if admin_key is not None and not admin_key.startswith(ENV_PREFIX):
            _check_key(admin_key)
        return admin_key

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: list[str]) -> list[str]:
        for each in proxies:
            try:
                ip_network(each)
            except ValueError as error:
                raise ValueError(
                    f"must be addresses or networks such as 10.0.0.0/8: {error}"
                ) from None
        return proxies

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
