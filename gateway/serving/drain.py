"""Drain of a router that stops together with all others: nothing new, and an end for what runs."""

import asyncio
from types import TracebackType

from gateway.errors.upstream import ShuttingDown

MESSAGE = "The gateway is shutting down."
WRITE_S = 2.0
"""Time for the last events of requests that are ended, to reach their clients."""


class Drain:
    """The requests of one router, and how they end when it stops."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._ended: set[asyncio.Task[object]] = set()
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Number of requests that are being answered."""
        return len(self._tasks)

    def request(self) -> "_DrainedRequest":
        """Context of one request's answer.

        Raises:
            ShuttingDown: on entry, if a drain has begun; at the exit, if it ended the request.
        """
        return _DrainedRequest(self)

    async def drain(self, timeout_s: float) -> int:
        """Reject new requests, wait for those that run, and end those that are left.

        Each of these ends with an error: as an event, if its stream has begun. May be called again
        with a shorter timeout. Returns the number of requests that were ended.
        """
        self._is_draining = True
        await self._wait_until_idle(timeout_s)
        cut = self._tasks - self._ended
        self._ended |= cut
        for task in cut:
            task.cancel()
        await self._wait_until_idle(WRITE_S)
        return len(cut)

    def add(self, task: asyncio.Task[object]) -> None:
        """Count a request that begins."""
        if self._is_draining:
            raise ShuttingDown(MESSAGE)
        self._tasks.add(task)
        self._idle.clear()

    def remove(self, task: asyncio.Task[object]) -> bool:
        """Count a request no longer; return whether it was ended here."""
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()
        if task in self._ended:
            self._ended.remove(task)
            return True
        return False

    async def _wait_until_idle(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return


class _DrainedRequest:
    """One request that is being answered, as a context, like `asyncio.timeout`."""

    __slots__ = ("_drain", "_task")

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request needs a task")
        self._task: asyncio.Task[object] = task
        self._drain.add(task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        is_cancelled = kind is asyncio.CancelledError
        if self._drain.remove(self._task) and self._task.uncancel() == 0 and is_cancelled:
            raise ShuttingDown(MESSAGE) from error
