"""Writes parts of a response's body past ASGI, as uvicorn's own `send` would write them.

ASGI costs each part a message, a coroutine and the checks of an application that may do anything.
Events of a stream need none of these, and there are many.
"""

from collections.abc import Callable
from typing import Any

from deployments.serve_internals.fallback import GONE, warn_once
from deployments.serve_internals.head_coalescing import HeadCoalescingTransport
from gateway.asgi import Send
from gateway.upstream.chunks import as_chunk

CONSEQUENCE = "each event of a stream passes through ASGI, at a third more of a router's CPU time"


def body_writer_behind(send: Send) -> "CycleBodyWriter | None":
    """The writer for a response whose `send` is uvicorn's own.

    None if something is between, such as what keeps chunks from HTTP/1.0, or if this version of
    uvicorn lacks a name that it needs.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

        cycle = getattr(send, "__self__", None)
        return CycleBodyWriter(cycle) if isinstance(cycle, RequestResponseCycle) else None
    except GONE as error:
        warn_once("uvicorn's state of a response", CONSEQUENCE, repr(error))
        return None


class CycleBodyWriter:
    """`BodyWriter` of the request of one `RequestResponseCycle`, uvicorn's.

    Raises:
        AttributeError: this version of uvicorn differs.
    """

    __slots__ = ("_cycle", "_flow", "_write")

    def __init__(self, cycle: Any) -> None:  # noqa: ANN401 - uvicorn documents no type
        self._cycle = cycle
        self._flow = cycle.flow
        self._write: Callable[[bytes], None] | None = None
        # Read here first, because an event must not be the first to fail.
        _ = self._flow.write_paused, cycle.disconnected, cycle.response_complete
        _ = cycle.transport.write, cycle.response_started, cycle.chunked_encoding

    def write(self, body: bytes, chunks: bytes) -> bool:
        """Write a part after which more follows; returns False if it has to be sent by ASGI."""
        cycle = self._cycle
        if self._flow.write_paused or cycle.disconnected or cycle.response_complete:
            return False
        write = self._write or self._begin()
        if write is None:
            return False
        write(chunks or as_chunk(body))
        return True

    def _begin(self) -> Callable[[bytes], None] | None:
        """The transport's `write`, once the head has been sent; None if that gives a length.

        Only `send` keeps count of the length; HEAD has none of this.
        """
        cycle = self._cycle
        if not (cycle.response_started and cycle.chunked_encoding):
            return None
        transport = cycle.transport
        is_coalescing = isinstance(transport, HeadCoalescingTransport)
        # A response has one head, so no other is held back from here on.
        self._write = transport.flushed_write() if is_coalescing else transport.write
        return self._write
