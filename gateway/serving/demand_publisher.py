"""Publisher of demand: reports to each engine the requests that wait for it in this router.

An engine that is full cannot know how many requests wait for it, since they wait in routers. It
passes the demand on to the autoscaler, which decides how many engines there are.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping

import msgspec

from gateway.errors import UpstreamFailed
from gateway.routing.fleet import Replica
from gateway.serving.periodic import Periodic
from gateway.telemetry import DEMAND_PATH, Demand
from gateway.upstream.client import UpstreamClient
from gateway.upstream.headers import engine_headers

PERIOD_S = 1.0
TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


class DemandPublisher:
    """Publishes `demands`, by replica, every `period_s` seconds, from `start` to `close`.

    When no request waits for an engine any longer, it gets one last, empty report.
    """

    def __init__(
        self, demands: Callable[[], Mapping[Replica, Demand]], period_s: float = PERIOD_S
    ) -> None:
        self._demands = demands
        self._router = uuid.uuid4().hex
        self._upstream = UpstreamClient()
        self._informed: set[Replica] = set()
        """Replicas to which the last report was of waiting requests."""
        self._unreached: set[Replica] = set()
        """Replicas that the last report did not reach: that is logged once."""
        self._periodic = Periodic("publishing demand", period_s, self.publish)

    def start(self) -> None:
        """Begin to publish."""
        self._periodic.start()

    async def close(self) -> None:
        """Stop publishing."""
        await self._periodic.close()
        await self._upstream.close()

    async def publish(self) -> None:
        """Report to all engines that requests wait for, or no longer wait for."""
        demands = self._demands()
        news = {r: demands.get(r, Demand()) for r in self._informed | demands.keys()}
        self._informed = set(demands)
        self._unreached &= news.keys()
        await asyncio.gather(*(self._put(*each) for each in news.items()))

    async def _put(self, replica: Replica, demand: Demand) -> None:
        body = msgspec.json.encode(msgspec.structs.replace(demand, router=self._router))
        headers = engine_headers((), replica.metadata.key, b"demand")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._upstream.request(
                    replica.address, "PUT", DEMAND_PATH, headers, body
                )
                try:
                    while not response.is_finished:
                        await response.read()
                finally:
                    response.close()
        except (TimeoutError, UpstreamFailed) as error:
            if replica not in self._unreached:
                self._unreached.add(replica)
                logger.info("demand cannot be sent to replica %s: %s", replica.id, error)
        else:
            self._unreached.discard(replica)
