"""Heartbeat of a silent stream: signs that it lives, which change nothing for its reader.

Proxies and clients give up on connections that carry nothing for some tens of seconds; an answer
may need minutes before its first byte, or between two.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from gateway.serving.client_response import ClientResponse
from gateway.serving.signs_of_life import COMMENT, NO_SIGNS

PERIOD_S = 10.0
"""A stream that is silent for one to two periods gets a sign of life."""


class Heartbeat:
    """Async context in which a response is not silent for long.

    `begin`: begins the response, if nothing else has for a period. `is_between_events`: whether the
    stream stands between two events now. `sign`: makes a sign of life with a comment at its
    beginning. Costs one timer a request.
    """

    __slots__ = (
        *("_begin", "_comment", "_sending", "_is_between_events", "_loop", "_period_s"),
        *("_response", "_seen_parts", "_sign", "_timer"),
    )

    def __init__(
        self,
        response: ClientResponse,
        begin: Callable[[], Awaitable[None]],
        is_between_events: Callable[[], bool],
        sign: Callable[[bytes], bytes] = NO_SIGNS.after,
        period_s: float = PERIOD_S,
    ) -> None:
        self._response = response
        self._begin = begin
        self._is_between_events = is_between_events
        self._sign = sign
        self._period_s = period_s
        self._seen_parts = 0
        self._sending: asyncio.Task[None] | None = None
        self._comment = COMMENT
        self._timer: asyncio.TimerHandle

    def announce(self, comment: bytes, delay_s: float) -> None:
        """Send another comment from now on, the first in `delay_s` if the stream is silent."""
        self._comment = comment
        self._restart(delay_s)

    def resume(self) -> None:
        """Send the usual comment from now on, after the usual silence."""
        self._comment = COMMENT
        self._restart(self._period_s)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._period_s, self._check)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()
            # It fails if the client has left or the response has ended, which does not matter here.
            await asyncio.gather(self._sending, return_exceptions=True)

    def _restart(self, delay_s: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._check)

    def _check(self) -> None:
        response = self._response
        is_idle = self._sending is None or self._sending.done()
        is_silent = response.parts == self._seen_parts and not response.has_ended
        if is_silent and is_idle and self._is_between_events():
            self._sending = self._loop.create_task(self._send_comment())
        self._seen_parts = response.parts
        self._timer = self._loop.call_later(self._period_s, self._check)

    async def _send_comment(self) -> None:
        if not self._is_between_events():
            return  # not any more
        await self._begin()
        await self._response.send_part(self._sign(self._comment))
