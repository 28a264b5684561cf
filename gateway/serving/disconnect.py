"""Noticing that a client has gone while its answer is being made."""

import asyncio
from types import TracebackType

from gateway.asgi import Message, Receive
from gateway.serving.body import ClientDisconnected
from gateway.serving.client_response import ClientResponse


class UntilDisconnect:
    """An async context that ends with `ClientDisconnected` as soon as the client has gone.

    Ray Serve would cancel the request by itself, at the cost of two tasks more; `gateway-haproxy`
    tells it not to. With this, no engine works for a client that is gone, whatever the server
    around us does. Works as `asyncio.timeout` does: the task is cancelled, and the cancellation
    turned into the exception.
    """

    __slots__ = ("_has_gone", "_receive", "_reply", "_task", "_watch")

    def __init__(self, receive: Receive, reply: ClientResponse) -> None:
        self._receive = receive
        self._reply = reply
        self._has_gone = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("UntilDisconnect needs a task")
        self._task = task
        self._watch = asyncio.ensure_future(self._receive(), loop=loop)
        self._watch.add_done_callback(self._leave)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.remove_done_callback(self._leave)
        self._watch.cancel()
        if self._has_gone and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientDisconnected from error

    def _leave(self, watch: asyncio.Future[Message]) -> None:
        # A server that cannot tell any more (an exception) has lost its client, too. After the
        # answer's end servers say the same of clients that are still there.
        if (
            watch.cancelled()
            or self._reply.has_ended
            or (watch.exception() is None and watch.result()["type"] != "http.disconnect")
        ):
            return
        self._has_gone = True
        self._task.cancel()
