"""Live gateway config: adopts new ones, keeps the last good one, and reports those it rejects."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

from gateway.config.gateway import GatewayConfig
from gateway.config.loader import parse_gateway
from gateway.config.model_names import ModelNames
from gateway.config.resolution import resolve_gateway
from gateway.errors import ConfigError
from gateway.serving.trusted_proxies import TrustedProxies

SHOWN = {
    "aliases",
    "splits",
    "fallbacks",
    "max_body_mb",
    "max_text_body_mb",
    "max_bodies_mb",
    "rate_limits",
    "cors",
    "open_on_loopback",
    "trusted_proxies",
}
"""Fields of a config that operators may see: none that holds a secret."""

logger = logging.getLogger(__name__)


class ConfigStore(Protocol):
    """Store in which the last good config outlives the router."""

    async def keep(self, config: bytes) -> None:
        """Keep this config instead of any earlier one."""

    async def recall(self) -> bytes | None:
        """The config that was kept last, if any."""


@dataclass(frozen=True, slots=True)
class RejectedConfig:
    """A config that was not adopted."""

    problems: tuple[str, ...]
    """Its mistakes, one line each."""
    refused_s: float
    """When it was rejected, in Unix time."""


class LiveConfig:
    """The gateway config in force; requests under way keep what they have read of it.

    A router never gives up a good config for a wrong one. Nor must a router fail to start for a
    wrong one (another has died, or there are to be more): it goes by the last good one, which
    `store` has kept. `environ`: where keys are read that the config refers to.
    """

    def __init__(
        self, store: ConfigStore | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._store = store
        self._environ = environ or {}
        self._has_adopted = False
        self._config = GatewayConfig()
        self._names = ModelNames(self._config)
        self._trusted_proxies = TrustedProxies()
        self._written = self._config
        """The config in force as it is written: with references in place of secrets."""
        self._rejected: RejectedConfig | None = None

    @property
    def config(self) -> GatewayConfig:
        """The config in force."""
        return self._config

    @property
    def names(self) -> ModelNames:
        """Models that the names in requests stand for."""
        return self._names

    @property
    def admin_key(self) -> str | None:
        """Bearer token that opens the operators' routes."""
        return self._config.admin_key

    @property
    def trusted_proxies(self) -> TrustedProxies:
        """Proxies in front of the gateway that name the client."""
        return self._trusted_proxies

    @property
    def rejected(self) -> RejectedConfig | None:
        """The last config that was rejected, since the one in force was adopted."""
        return self._rejected

    def apply(self, config: GatewayConfig) -> None:
        """Go by a config from now on.

        Raises:
            ConfigError: it cannot be used; then nothing has changed.
        """
        resolved, names = resolve_gateway(config, self._environ), ModelNames(config)
        self._config, self._names, self._written = resolved, names, config
        self._trusted_proxies = TrustedProxies(resolved.trusted_proxies)

    async def adopt(self, user_config: object) -> None:
        """Go by a config from now on; where it is wrong, by the last good one.

        Raises:
            ConfigError: it is wrong, and there is no good one.
        """
        try:
            self._adopt(user_config)
        except ConfigError as error:
            await self._reject(error)
        except Exception as error:
            # To raise would have Serve stop every router.
            logger.exception("the gateway config could not be read")
            await self._reject(ConfigError(f"gateway: could not be read: {error!r}"))
        else:
            self._rejected = None
            if self._store is not None:
                await self._store.keep(json.dumps(user_config).encode())

    def report(self) -> dict[str, object]:
        """The config in force, and the problems of one that was rejected."""
        return {
            "object": "gateway.config",
            "config": self._written.model_dump(mode="json", include=SHOWN),
            "refused": asdict(self._rejected) if self._rejected else None,
        }

    def _adopt(self, user_config: object) -> None:
        self.apply(parse_gateway(user_config))
        self._has_adopted = True

    async def _reject(self, error: ConfigError) -> None:
        if not self._has_adopted:
            await self._restore(error)
        self._rejected = RejectedConfig(tuple(error.message.splitlines()), time.time())
        logger.error("gateway config rejected; keeping the previous one:\n%s", error)

    async def _restore(self, error: ConfigError) -> None:
        """Go by the config that was kept last; raise `error` where there is no good one."""
        kept = None if self._store is None else await self._store.recall()
        if kept is None:
            raise error
        try:
            self._adopt(json.loads(kept))
        except ConfigError:
            raise error from None
