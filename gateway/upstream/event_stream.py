"""Forwards an engine's event stream, up to its end or to the error that breaks it."""

from collections.abc import Awaitable, Callable

import msgspec

from gateway.errors.upstream import Reason, UpstreamFailed
from gateway.upstream.response import EngineResponse, Relay
from gateway.upstream.sse import EventBuffer

ERROR = b'data: {"error"'
"""What events with an error of the engine's own begin with, and perhaps others."""
_ERROR_AFTER_EVENT = b"\n\n" + ERROR


class _EngineErrorDetail(msgspec.Struct):
    """The part of an engine's error that says whose fault it is."""

    code: int | str | None = None


class _EngineErrorEvent(msgspec.Struct):
    """Event with which an engine ends a stream that it cannot continue."""

    error: _EngineErrorDetail


_decoder = msgspec.json.Decoder(_EngineErrorEvent)


async def forward_events(
    response: EngineResponse,
    buffer: EventBuffer,
    forward: Callable[[bytes], Awaitable[None]],
    relay: Relay | None = None,
) -> bytes:
    """Forward every run of whole events except the last, which is returned.

    `relay`: forwards what arrives while nothing is left to `forward`, but for what it declines.

    Raises:
        UpstreamFailed: the stream broke, or the engine ended it with an error of its own. The
            events before that have been forwarded.
    """
    response.relay = relay
    chunk = buffer.feed(await response.read())
    while not response.is_finished:
        if chunk:
            if ERROR in chunk:
                await _forward_until_error(chunk, forward)
            else:
                await forward(chunk)
        chunk = buffer.feed(await response.read())
    chunk += buffer.flush()
    if ERROR in chunk and _engine_error_position(chunk) >= 0:
        await _forward_until_error(chunk, forward)
    return chunk


async def _forward_until_error(chunk: bytes, forward: Callable[[bytes], Awaitable[None]]) -> None:
    position = _engine_error_position(chunk)
    if position:
        await forward(chunk[:position] if position > 0 else chunk)
    if position >= 0:
        raise UpstreamFailed(
            "The engine failed before its response was complete.", Reason.ENGINE_ERROR
        )


def _engine_error_position(events: bytes) -> int:
    """Return where the event with an error of the engine's own begins; -1 if there is none."""
    if events.startswith(ERROR):
        start = 0
    else:
        # No line within an event is empty: JSON has no bare line breaks.
        start = events.find(_ERROR_AFTER_EVENT) + 2
        if start < 2:
            return -1
    event = events[start + len(b"data: ") :].partition(b"\n")[0]
    try:
        code = _decoder.decode(event).error.code
    except msgspec.MsgspecError:
        return -1
    return start if isinstance(code, int) and code >= 500 else -1
