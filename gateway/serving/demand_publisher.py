"""What this router holds back, told to the engines it is held for.

An engine that is full cannot know how many wait for it: routers hold them back. It passes on what
it is told here to whoever decides how many engines there are.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping

import msgspec

from gateway.errors import UpstreamFailed
from gateway.routing.fleet import Replica
from gateway.telemetry import DEMAND_PATH, Demand
from gateway.upstream.client import UpstreamClient
from gateway.upstream.headers import to_engine

PERIOD_S = 1.0
TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


class DemandPublisher:
    """Tells them every `period_s` seconds, from `start` to `close`; `held`: what there is to tell.

    Once it holds nothing more for an engine it says so, and then no more.
    """

    def __init__(
        self, held: Callable[[], Mapping[Replica, Demand]], period_s: float = PERIOD_S
    ) -> None:
        self._held = held
        self._period_s = period_s
        self._router = uuid.uuid4().hex
        self._upstream = UpstreamClient()
        self._told: set[Replica] = set()
        """Those that think that something is held for them."""
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tell."""
        self._telling = asyncio.create_task(self._run(), name="notices")

    async def close(self) -> None:
        """Tell no more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
        await self._upstream.close()

    async def tell(self) -> None:
        """Tell all engines that have to know."""
        held = self._held()
        news = {replica: held.get(replica, Demand()) for replica in self._told | held.keys()}
        self._told = set(held)
        await asyncio.gather(*(self._put(*each) for each in news.items()))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.tell()
            except Exception:
                # A defect of ours: the next one may come through.
                logger.exception("engines could not be told what is held back for them")

    async def _put(self, replica: Replica, demand: Demand) -> None:
        body = msgspec.json.encode(msgspec.structs.replace(demand, router=self._router))
        headers = to_engine((), replica.metadata.key, b"demand")
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
            logger.info("replica %s does not hear what is held back for it: %s", replica.id, error)
