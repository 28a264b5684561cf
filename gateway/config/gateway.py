"""How requests reach the models: the Router's `user_config`."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, field_validator, model_validator

from gateway.config.naming import Naming
from gateway.config.strict import conflicts
from gateway.errors import ConfigError

KEY_LENGTH = 16
"""Characters of an access key at least."""
REFERENCE = "env:"
"""What a key begins with that stands in an environment variable."""


class GatewayConfig(Naming):
    """How requests reach the models; changed in place by `serve deploy`."""

    max_body_mb: float = Field(default=32, gt=0)
    """Maximum size of a request body, in megabytes (2**20 bytes)."""
    admin_key: str | None = None
    """Bearer token for the routes under `/gateway`, or `env:NAME` to read it from that environment
    variable of the Router. If unset, these routes exist only while the gateway listens on loopback
    alone."""

    @field_validator("admin_key")
    @classmethod
    def _sound(cls, admin_key: str | None) -> str | None:
        if admin_key is not None and not admin_key.startswith(REFERENCE):
            _check_key(admin_key)
        return admin_key

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := list(self.flaws()):
            raise conflicts(found)
        return self

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
