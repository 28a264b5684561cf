"""Publisher of demand: reports to each engine the requests that wait for it in this router.

An engine that is full cannot know how many requests wait for it, since they wait in routers. It
passes the demand on to the autoscaler, which decides how many engines there are, and the projects
for which routers hold requests to the other routers, which share out the engine's time.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping

import msgspec

from gateway.admission.demand_reports import REPORT_S, DemandReports
from gateway.errors.upstream import UpstreamFailed
from gateway.periodic import Periodic
from gateway.routing.fleet import Replica
from gateway.telemetry.demand import DEMAND_PATH, Demand
from gateway.upstream.client import UpstreamClient
from gateway.upstream.headers import engine_headers

PERIOD_S = 1.0
TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


class DemandPublisher:
    """Publishes `demands`, by replica, every `period_s` seconds, from `start` to `close`.

    When no request waits for an engine any longer, it gets one last, empty report. After
    `publish_soon`, an engine for which other projects wait than it knows is told at once.
    `router`: id of this router; by default, a random one.
    """

    def __init__(
        self,
        demands: Callable[[], Mapping[Replica, Demand]],
        period_s: float = PERIOD_S,
        router: str = "",
    ) -> None:
        self._demands = demands
        self._router = router or uuid.uuid4().hex
        self._upstream = UpstreamClient()
        self._reports = DemandReports()
        self._unreached: set[Replica] = set()
        """Replicas that the last report did not reach: that is logged once."""
        self._latest: dict[Replica, Demand] = {}
        """Reports that wait until the one before, to the same replica, has been sent."""
        self._sending: dict[Replica, asyncio.Task[None]] = {}
        """One task at most for a replica: reports arrive in the order in which they are made."""
        self._changed = asyncio.Event()
        self._periodic = Periodic("publishing demand", period_s, self.publish)
        self._on_change = Periodic("publishing held projects", REPORT_S, self._publish_changes)

    def start(self) -> None:
        """Begin to publish."""
        self._periodic.start()
        self._on_change.start()

    async def close(self) -> None:
        """Stop publishing."""
        await self._periodic.close()
        await self._on_change.close()
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._upstream.close()

    def publish_soon(self) -> None:
        """Report at once where other projects than before wait for an engine."""
        self._changed.set()

    async def publish(self) -> None:
        """Report to all engines that requests wait for, or no longer wait for; awaits none."""
        news = self._reports.due(self._demands())
        self._unreached &= news.keys()
        self._send_all(news)

    async def _publish_changes(self) -> None:
        await self._changed.wait()
        self._changed.clear()
        self._send_all(self._reports.due(self._demands(), only_changes=True))

    def _send_all(self, news: Mapping[Replica, Demand]) -> None:
        self._latest.update(news)
        for replica in news.keys() - self._sending.keys():
            sending = self._send_latest(replica)
            self._sending[replica] = asyncio.create_task(sending, name="demand-report")

    async def _send_latest(self, replica: Replica) -> None:
        try:
            while (demand := self._latest.pop(replica, None)) is not None:
                await self._put(replica, demand)
        finally:
            del self._sending[replica]

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
