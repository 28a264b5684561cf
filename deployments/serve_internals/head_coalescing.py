"""Sends the head of a response together with the first bytes of its body.

uvicorn writes the head by itself, which uvloop (from 0.22 on) sends at once: each stream would
start with two packets instead of one, and wake its readers, HAProxy first of all, twice.
"""

import asyncio
from collections.abc import Callable

HEAD, INTERIM_HEAD = b"HTTP/1.1 ", b"HTTP/1.1 1"
"""First bytes of responses, and of interim responses, which clients wait for."""


class HeadCoalescingTransport:
    """Transport that holds back a response's head until more is written or the loop's turn ends."""

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> object:
        """Any other attribute of the transport."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write the bytes, or hold them back if they are a head."""
        if self._head:
            self._transport.writelines((self._head, data))
            self._head = b""
        elif data.startswith(HEAD) and not data.startswith(INTERIM_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def flushed_write(self) -> Callable[[bytes], None]:
        """Write what is held back; return the transport's own `write`, for the rest of a body."""
        self._flush()
        return self._transport.write

    def close(self) -> None:
        """Write what is held back, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)
