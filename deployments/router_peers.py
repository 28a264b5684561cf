"""The gateway's other routers, as one of them asks them: through a handle of Serve's."""

import asyncio
import logging
from collections.abc import Callable, Collection

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.serve_internals.broadcast import answers_in_time
from gateway.inspection.all_routers import PeerAnswers

ROUTER_DEPLOYMENT = "Router"
INSPECT = "inspect"
"""Method of the deployment that answers a router's question."""

logger = logging.getLogger("ray.serve")

Answer = tuple[str, bytes | None]
"""Id of a router, and its encoded rows; None from the one that has asked."""


class ServeRouterPeers:
    """`RouterPeers` of a router in Ray Serve.

    `router`: its id. `running`: ids of all routers that run, as Serve says.
    """

    def __init__(self, router: str, running: Callable[[], Collection[str]]) -> None:
        self._router = router
        self._running = running
        self._application = serve.get_replica_context().app_name
        self._handle: DeploymentHandle | None = None

    async def ask(self, query: bytes, timeout_s: float) -> PeerAnswers:
        """Ask all routers; those that run, and do not answer in time, are missing."""
        expected = {*self._running()} - {self._router}
        if not expected:
            return PeerAnswers()
        answers: list[Answer] = []
        try:
            async with asyncio.timeout(timeout_s):
                handle = await self._routers()
            answers = list(
                await answers_in_time(handle, INSPECT, self._router, query, timeout_s=timeout_s)
            )
        except Exception as error:  # noqa: BLE001 - whatever Ray raises: this router answers alone
            logger.warning("the other routers cannot be asked: %s", error)
        rows = {router: found for router, found in answers if found is not None}
        return PeerAnswers(rows, sorted(expected - rows.keys()))

    async def _routers(self) -> DeploymentHandle:
        if self._handle is None:
            self._handle = await asyncio.to_thread(
                serve.get_deployment_handle, ROUTER_DEPLOYMENT, self._application
            )
        return self._handle
