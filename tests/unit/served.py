"""A router that is served over HTTP by a thread of its own, for what blocks while it asks."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn

from gateway.assembly import AssembledRouter
from tests.unit.conftest import PATIENCE_S

POLL_S = 0.02
MakeRouter = Callable[[], Awaitable[AssembledRouter]]
Close = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """Do nothing: the router was not started."""


class ServingThread:
    """The thread; `url` is the router's address once `is_up` is set."""

    def __init__(self, make_router: MakeRouter, close: Close) -> None:
        self._make_router = make_router
        self._close = close
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.is_up = threading.Event()
        self.url = ""

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()
        if not self.is_up.wait(PATIENCE_S):
            raise TimeoutError

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join()

    async def _run(self) -> None:
        router = await self._make_router()
        config = uvicorn.Config(router.app, port=0, log_level="critical")
        self._server = uvicorn.Server(config)
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(POLL_S)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.is_up.set()
        await serving
        await self._close()


@contextmanager
def served(make_router: MakeRouter, close: Close = nothing) -> Iterator[str]:
    """Address of a router, which is made in the thread's event loop; `close`: what it leaves."""
    thread = ServingThread(make_router, close)
    thread.start()
    try:
        yield thread.url
    finally:
        thread.stop()
