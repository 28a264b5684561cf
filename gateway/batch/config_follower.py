"""Gateway config of the process of batches: the one that routers have adopted last."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

from gateway.errors.startup import ConfigError
from gateway.serving.live_config import LiveConfig

logger = logging.getLogger("ray.serve")


class ConfigFollower:
    """Adopts each config that `recall` finds; None: there is none yet.

    One that cannot be used here, because this process lacks a file or a variable that routers have,
    is tried again with each call, and the one before stays in force.
    """

    def __init__(self, recall: Callable[[], Awaitable[bytes | None]], live: LiveConfig) -> None:
        self._recall = recall
        self._live = live
        self._adopted: bytes | None = None
        self._problem = ""
        self._has_config = asyncio.Event()

    async def follow(self) -> None:
        """Adopt the config that routers have adopted since the last call."""
        kept = await self._recall()
        if kept is None or kept == self._adopted:
            return
        problem = await self._problem_of(kept)
        if problem and problem != self._problem:
            logger.error("Batches waits for a gateway config that it can use: %s", problem)
        self._problem = problem
        if not problem:
            self._adopted = kept
            self._has_config.set()

    async def _problem_of(self, kept: bytes) -> str:
        """Adopt a config; says why it cannot be, if so."""
        try:
            await self._live.adopt(json.loads(kept))
        except ConfigError as error:
            return str(error)
        return ""

    async def wait_for_first(self) -> None:
        """Wait until a config is in force."""
        await self._has_config.wait()
