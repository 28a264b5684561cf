"""Signs of life for a client whose stream is silent: comments, which every reader of SSE skips.

Proxies and clients give up on connections that carry nothing for some tens of seconds; an answer
may need minutes before its first byte, or between two.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from gateway.serving.client_response import ClientResponse

PERIOD_S = 10.0
"""A stream that is silent for one to two of these gets a sign of life."""
COMMENT = b": still working\n\n"


class Heartbeat:
    """An async context in which `reply` is not silent for long.

    `begin` begins the reply, if nothing else has for a period. `is_between`: whether the stream
    stands between two events. Costs one timer a request.
    """

    __slots__ = (
        *("_beat", "_begin", "_is_between", "_loop", "_period_s", "_reply", "_seen", "_timer"),
        "comment",
    )

    def __init__(
        self,
        reply: ClientResponse,
        begin: Callable[[], Awaitable[None]],
        is_between: Callable[[], bool],
        period_s: float = PERIOD_S,
    ) -> None:
        self._reply = reply
        self._begin = begin
        self._is_between = is_between
        self._period_s = period_s
        self._seen = 0
        self._beat: asyncio.Task[None] | None = None
        self.comment = COMMENT
        """What it says."""
        self._timer: asyncio.TimerHandle

    def hasten(self, delay_s: float) -> None:
        """Have the next look come in `delay_s`, where the client is to be told something."""
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._look)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._period_s, self._look)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()
            # It may have come too late, or to a client that has gone: nobody else needs to know.
            await asyncio.gather(self._beat, return_exceptions=True)

    def _look(self) -> None:
        reply = self._reply
        is_idle = self._beat is None or self._beat.done()
        is_silent = reply.parts == self._seen and not reply.has_ended
        if is_silent and is_idle and self._is_between():
            self._beat = self._loop.create_task(self._say())
        self._seen = reply.parts
        self._timer = self._loop.call_later(self._period_s, self._look)

    async def _say(self) -> None:
        if not self._is_between():
            return  # not any more
        await self._begin()
        await self._reply.part(self.comment)
