"""Detection of clients that disconnect while their response is being made."""

import asyncio
from types import TracebackType

from gateway.asgi import Message, Receive
from gateway.serving.body import ClientDisconnected
from gateway.serving.client_response import ClientResponse


class UntilDisconnect:
    """Async context that ends with `ClientDisconnected` as soon as the client has disconnected.

    Ray Serve would cancel the request by itself, at the cost of two more tasks; `gateway-haproxy`
    tells it not to. With this, no engine works for a client that has left, whatever the server
    around the gateway does. Works as `asyncio.timeout` does: the task is cancelled, and the
    cancellation turned into the exception.
    """

    __slots__ = ("_has_disconnected", "_receive", "_response", "_task", "_watch")

    def __init__(self, receive: Receive, response: ClientResponse) -> None:
        self._receive = receive
        self._response = response
        self._has_disconnected = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("UntilDisconnect needs a task")
        self._task = task
        self._watch = asyncio.ensure_future(self._receive(), loop=loop)
        self._watch.add_done_callback(self._disconnect)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.remove_done_callback(self._disconnect)
        self._watch.cancel()
        has_been_cancelled = kind is asyncio.CancelledError
        if self._has_disconnected and self._task.uncancel() == 0 and has_been_cancelled:
            raise ClientDisconnected from error

    def _disconnect(self, watch: asyncio.Future[Message]) -> None:
        # A server that fails has lost its client, too. After the end of the response, servers
        # report a disconnect even of clients that are still connected.
        if (
            watch.cancelled()
            or self._response.has_ended
            or (watch.exception() is None and watch.result()["type"] != "http.disconnect")
        ):
            return
        self._has_disconnected = True
        self._task.cancel()
