"""Live gateway config: adopts new ones, keeps the last good one, and reports those it rejects."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

from gateway.authentication.project_files import ProjectFiles, ReadFiles
from gateway.config.auth import AUTH_IS_MISSING, Auth
from gateway.config.gateway import GatewayConfig
from gateway.config.loader import parse_gateway
from gateway.config.model_names import ModelNames
from gateway.config.resolution import resolve_gateway
from gateway.errors.startup import ConfigError
from gateway.identity.live_directory import LiveDirectory
from gateway.serving.trusted_proxies import TrustedProxies

SHOWN = {
    "aliases",
    "splits",
    "fallbacks",
    "max_body_mb",
    "max_text_body_mb",
    "max_bodies_mb",
    "rate_limits",
    "request_log",
    "auth",
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


@dataclass(frozen=True, slots=True)
class UsableConfig:
    """A valid config, with all that it refers to."""

    written: GatewayConfig
    """The config as it is written: with references in place of secrets."""
    resolved: GatewayConfig
    names: ModelNames
    project_files: ReadFiles


class LiveConfig:
    """The gateway config in force; requests under way keep what they have read of it.

    A router never gives up a good config for a wrong one. Nor must a router fail to start for a
    wrong one (another has died, or there are to be more): it goes by the last good one, which
    `store` has kept. `environ`: where keys are read that the config refers to. `needs_auth`: the
    gateway can be reached from other machines, so the config must say how clients are
    authenticated; until there is one, nobody is let in.
    """

    def __init__(
        self,
        store: ConfigStore | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        needs_auth: bool = False,
    ) -> None:
        self._store = store
        self._environ = environ or {}
        self._needs_auth = needs_auth
        self._adopting = asyncio.Lock()
        self._has_adopted = False
        self._config = GatewayConfig(auth=Auth()) if needs_auth else GatewayConfig()
        self.directory = LiveDirectory()
        """Projects and keys in force."""
        self._project_files = ProjectFiles(self.directory)
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
        self._install(self._usable(config))

    async def adopt(self, user_config: object) -> None:
        """Go by a config from now on; where it is wrong, by the last good one.

        Raises:
            ConfigError: it is wrong, and there is no good one.
        """
        async with self._adopting:
            await self._adopt_or_keep(user_config)

    async def refresh_projects(self) -> None:
        """Read the projects files again if one has changed."""
        await self._project_files.refresh()

    @property
    def problems(self) -> tuple[str, ...]:
        """Mistakes in the last config, and in projects files, that are not in force for them."""
        rejected = self._rejected.problems if self._rejected else ()
        return (*rejected, *self._project_files.problems)

    def report(self) -> dict[str, object]:
        """The config in force, and the problems of one that was rejected."""
        return {
            "object": "gateway.config",
            "config": self._written.model_dump(mode="json", include=SHOWN),
            "refused": asdict(self._rejected) if self._rejected else None,
            "refused_projects": self._project_files.problems,
        }

    async def _adopt_or_keep(self, user_config: object) -> None:
        try:
            await self._adopt(user_config)
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

    async def _adopt(self, user_config: object) -> None:
        config = parse_gateway(user_config)
        self._install(await asyncio.to_thread(self._usable, config))
        self._has_adopted = True

    def _usable(self, config: GatewayConfig) -> UsableConfig:
        """The config with what it refers to; reads files.

        Raises:
            ConfigError: it cannot be used here.
        """
        resolved = resolve_gateway(config, self._environ)
        if self._needs_auth and resolved.auth is None:
            raise ConfigError(f"gateway: auth: {AUTH_IS_MISSING}")
        paths = resolved.auth.projects if resolved.auth is not None else ()
        return UsableConfig(config, resolved, ModelNames(config), ReadFiles.read(paths))

    def _install(self, usable: UsableConfig) -> None:
        self._config, self._names = usable.resolved, usable.names
        self._written = usable.written
        self._trusted_proxies = TrustedProxies(usable.resolved.trusted_proxies)
        self._project_files.install(usable.project_files)

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
            await self._adopt(json.loads(kept))
        except ConfigError:
            raise error from None
