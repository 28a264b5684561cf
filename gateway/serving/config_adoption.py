"""How a new gateway config comes into force, and what happens to one that is wrong."""

import json
import logging
import time
from collections.abc import Mapping
from typing import Protocol

from gateway.config.loader import parse_gateway
from gateway.errors import ConfigError
from gateway.serving.live_config import LiveConfig, RejectedConfig

logger = logging.getLogger(__name__)


class ConfigStore(Protocol):
    """Where the last config that was sound outlives the router."""

    async def keep(self, config: bytes) -> None:
        """Remember this one instead of any earlier one."""

    async def recall(self) -> bytes | None:
        """The one that was kept last, if any."""


class ConfigAdoption:
    """Takes configs into `live_config`.

    A router that goes by a config never gives it up for one that is wrong. Nor must a router that
    starts meanwhile (another has died, or there are to be more) fail for that: it goes by the
    config before, from the keepsake.
    """

    def __init__(
        self, live_config: LiveConfig, keepsake: ConfigStore, environ: Mapping[str, str]
    ) -> None:
        self._live_config = live_config
        self._keepsake = keepsake
        self._environ = environ
        self._has_config = False

    async def adopt(self, user_config: object) -> None:
        """Go by a config from here on, or by the one before where it is wrong.

        Raises:
            ConfigError: it is wrong, and there was none before.
        """
        try:
            self._take(user_config)
        except ConfigError as error:
            await self._refuse(error)
        except Exception as error:
            # To raise would have Serve stop every router.
            logger.exception("the gateway config could not be read")
            await self._refuse(ConfigError(f"gateway: could not be read: {error!r}"))
        else:
            self._live_config.refusal = None
            await self._keepsake.keep(json.dumps(user_config).encode())

    def _take(self, user_config: object) -> None:
        self._live_config.take(parse_gateway(user_config), self._environ)
        self._has_config = True

    async def _refuse(self, error: ConfigError) -> None:
        if not self._has_config:
            await self._go_back(error)
        self._live_config.refusal = RejectedConfig(tuple(error.message.splitlines()), time.time())
        logger.error("the new gateway config is refused, the one before stays:\n%s", error)

    async def _go_back(self, error: ConfigError) -> None:
        earlier = await self._keepsake.recall()
        if earlier is None:
            raise error
        try:
            self._take(json.loads(earlier))
        except ConfigError:
            raise error from None
