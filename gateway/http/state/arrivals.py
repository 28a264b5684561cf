"""Waits for events of responses that other requests to the same process bring."""

import asyncio
from collections import defaultdict

Key = tuple[str, str]
"""A project and the id of a response."""


class Arrivals:
    """Wakes up whoever waits for new events of a response."""

    def __init__(self) -> None:
        self._waiting: defaultdict[Key, set[asyncio.Future[None]]] = defaultdict(set)

    def announce(self, key: Key) -> None:
        """There is something new of a response."""
        for waiter in self._waiting.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, key: Key, timeout_s: float) -> bool:
        """Wait until there is something new, or time is up; whether there is."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key].add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            if key in self._waiting:
                self._waiting[key].discard(waiter)
                if not self._waiting[key]:
                    del self._waiting[key]
        return True
