"""An engine's stream of events on its way to a client, until its end or until it breaks."""

from collections.abc import Awaitable, Callable

import msgspec

from gateway.errors import Reason, UpstreamFailed
from gateway.upstream.response import EngineResponse
from gateway.upstream.sse import WholeEvents

_ERROR = b'data: {"error"'
_SEPARATED_ERROR = b"\n\n" + _ERROR


class _Detail(msgspec.Struct):
    """The part of an engine's error that tells whose fault it was."""

    code: int | str | None = None


class _Event(msgspec.Struct):
    """An event with which an engine ends a stream it cannot go on with."""

    error: _Detail


_decoder = msgspec.json.Decoder(_Event)


async def pass_events(
    response: EngineResponse, events: WholeEvents, pass_on: Callable[[bytes], Awaitable[None]]
) -> bytes:
    """Hand every run of whole events to `pass_on`, but for the last, which is returned.

    Raises:
        UpstreamFailed: the stream broke off, or the engine ended it because of a fault of its own;
            what came before that has been passed on.
    """
    chunk = events.feed(await response.read())
    while not response.is_finished:
        if chunk:
            if _ERROR in chunk:
                await _pass_until_error(chunk, pass_on)
            else:
                await pass_on(chunk)
        chunk = events.feed(await response.read())
    chunk += events.flush()
    if _ERROR in chunk and _error_position(chunk) >= 0:
        await _pass_until_error(chunk, pass_on)
    return chunk


async def _pass_until_error(chunk: bytes, pass_on: Callable[[bytes], Awaitable[None]]) -> None:
    position = _error_position(chunk)
    if position:
        await pass_on(chunk[:position] if position > 0 else chunk)
    if position >= 0:
        raise UpstreamFailed(
            "The engine failed before its answer was complete.", Reason.ENGINE_ERROR
        )


def _error_position(events: bytes) -> int:
    """Where an engine begins to tell of a fault of its own; -1 where it does not."""
    if events.startswith(_ERROR):
        start = 0
    else:
        # Within an event no line is empty: JSON has no bare line breaks.
        start = events.find(_SEPARATED_ERROR) + 2
        if start < 2:
            return -1
    event = events[start + len(b"data: ") :].partition(b"\n")[0]
    try:
        code = _decoder.decode(event).error.code
    except msgspec.MsgspecError:
        return -1
    return start if isinstance(code, int) and code >= 500 else -1
