"""Background task that calls a function again and again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


class Periodic:
    """Calls `call` every `period_s` seconds, from `start` to `close`; `name`: for the log."""

    def __init__(self, name: str, period_s: float, call: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._period_s = period_s
        self._call = call
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Call now, and from now on."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def close(self) -> None:
        """Cancel the current call, and make no others."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._call()
            except Exception:
                # A defect of the gateway: the next call may succeed.
                logger.exception("%s failed; trying again in %g s", self._name, self._period_s)
            await asyncio.sleep(self._period_s)
