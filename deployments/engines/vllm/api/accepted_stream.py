"""Streams that begin once the engine has accepted their request.

vLLM 0.32 validates a request only after its first events, which need no engine: a client's mistake
would break the stream off. Until the engine has accepted it, it is answered with a status instead.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar

from deployments.engines.call import current_call

_E = TypeVar("_E")


async def accepted(events: AsyncGenerator[_E, None]) -> AsyncIterator[_E]:
    """The events, once the engine has accepted the request of the call that is worked on.

    Raises whatever the events raise before that.
    """
    call = current_call()
    if call is None or call.accepted.is_set():
        return events
    acceptance = asyncio.ensure_future(call.accepted.wait())
    early: list[_E] = []
    try:
        while True:
            following = asyncio.ensure_future(anext(events))
            await asyncio.wait((following, acceptance), return_when=asyncio.FIRST_COMPLETED)
            if acceptance.done():
                return _joined(early, following, events)
            early.append(await following)
    except StopAsyncIteration:
        return _joined(early, None, events)
    except asyncio.CancelledError:
        following.cancel()
        raise
    finally:
        acceptance.cancel()


async def _joined(
    early: Sequence[_E], following: asyncio.Future[_E] | None, events: AsyncGenerator[_E, None]
) -> AsyncIterator[_E]:
    try:
        for event in early:
            yield event
        if following is not None:
            yield await following
            async for event in events:
                yield event
    except StopAsyncIteration:
        return
    finally:
        if following is not None and not following.done():
            following.cancel()
        await events.aclose()
