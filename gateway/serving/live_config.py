"""What may be changed while the gateway runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from gateway.config.gateway import GatewayConfig
from gateway.config.model_names import ModelNames
from gateway.serving.body import BodyLimits
from gateway.serving.operator_access import OperatorAccess

SHOWN = {"aliases", "splits", "fallbacks", "max_body_mb"}
"""The fields of a config that operators may see: none that holds a secret."""


@dataclass(frozen=True, slots=True)
class RejectedConfig:
    """A config that did not come into force."""

    problems: tuple[str, ...]
    """What is wrong with it: a line for each mistake."""
    refused_s: float
    """When, in Unix time."""


@dataclass(slots=True)
class LiveConfig:
    """Requests under way keep what they have read of it."""

    limits: BodyLimits = field(default_factory=BodyLimits)
    access: OperatorAccess = field(default_factory=OperatorAccess)
    names: ModelNames = field(default_factory=lambda: ModelNames(GatewayConfig()))
    """What the names that clients use stand for."""
    config: GatewayConfig = field(default_factory=GatewayConfig)
    """The config in force."""
    refusal: RejectedConfig | None = None
    """What has been refused since that came into force."""

    def take(self, config: GatewayConfig, environ: Mapping[str, str]) -> None:
        """Go by a config from here on.

        Raises:
            ConfigError: it cannot be used; then nothing has changed.
        """
        admin_key, names = config.resolved_admin_key(environ), ModelNames(config)
        self.access.admin_key = admin_key
        self.limits.max_body_mb = config.max_body_mb
        self.names, self.config = names, config

    def report(self) -> dict[str, object]:
        """The config in force, and what is wrong with one that is not."""
        return {
            "object": "gateway.config",
            "config": self.config.model_dump(mode="json", include=SHOWN),
            "refused": asdict(self.refusal) if self.refusal else None,
        }
