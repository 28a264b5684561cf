"""Route on which Accounts gets an engine's usage records, and confirms them."""

import asyncio
import contextlib
from urllib.parse import parse_qs

import msgspec

from deployments.engines.asgi import send_error, while_connected
from gateway.asgi import Receive, Scope, Send
from gateway.engine_telemetry.usage_log import UsageLog
from gateway.errors.request import InvalidRequest

LONGEST_WAIT_S = 10.0
"""How long an answer waits for a record."""

_encoder = msgspec.msgpack.Encoder()


class UsageRoute:
    """Answers `USAGE_PATH` from an engine's log; long polls end with `close`."""

    def __init__(self, log: UsageLog) -> None:
        self._log = log
        self._changed = asyncio.Event()
        self._is_closed = False
        log.add_listener(self._changed.set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Confirm records, and answer with those that follow."""
        try:
            epoch, confirmed = _parse(scope["query_string"])
        except ValueError:
            await send_error(send, InvalidRequest("`epoch` and `confirmed` must be numbers."))
            return
        self._log.confirm(epoch, confirmed)
        await while_connected(receive, self._answer(send))

    async def wait_until_confirmed(self, timeout_s: float) -> int:
        """Wait until all records are confirmed, if Accounts has ever asked; how many are not."""
        if self._log.is_followed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while len(self._log):
                        await self._change()
        return len(self._log)

    def close(self) -> None:
        """End all waits."""
        self._is_closed = True
        self._changed.set()

    async def _answer(self, send: Send) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_S):
                while not (len(self._log) or self._is_closed):
                    await self._change()
        body = _encoder.encode(self._log.page())
        headers = [
            (b"content-type", b"application/msgpack"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _change(self) -> None:
        """Wait for the next change of the log; several may wait at the same time."""
        self._changed.clear()
        await self._changed.wait()


def _parse(query: bytes) -> tuple[int, int]:
    """Read the epoch and the number up to which records are confirmed; 0 without one.

    Raises:
        ValueError: they are no numbers.
    """
    fields = parse_qs(query.decode("latin-1"))
    epoch, confirmed = (fields.get(name, ["0"])[0] for name in ("epoch", "confirmed"))
    return int(epoch), int(confirmed)
