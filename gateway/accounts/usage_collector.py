"""Collects the usage records of all engines: one long poll to each replica in the fleet.

A replica that has left the fleet may still finish requests: it is asked until it no longer answers.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.accounts.ledger_writer import LedgerWriter
from gateway.errors.upstream import UpstreamFailed
from gateway.routing.fleet import Fleet, Replica
from gateway.store.upkeep import ReplicaSeen
from gateway.store.usage import EngineBatch
from gateway.telemetry.usage import USAGE_PATH, UsagePage
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import read_all
from gateway.upstream.headers import engine_headers

PERIOD_S = 0.2
"""Least time between two questions to one engine: records come in batches."""
TIMEOUT_S = 20.0
"""Longer than an engine lets a question wait."""
MIN_DELAY_S = 0.1
MAX_DELAY_S = 2.0
PAGE_BYTES = 64 << 20

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class EngineLog:
    """What Accounts knows of the log of one engine."""

    replica: Replica
    model: str
    is_gone: bool = False
    """It is no longer in the fleet."""
    kept: int = 0
    """Records that the engine kept when it answered last, without those that it handed over."""
    dropped: int = 0
    oldest_s: float | None = None
    """When the oldest record that is not in the ledger was written, in Unix time."""
    epoch: int = 0
    confirmed: int = 0


class UsageCollector:
    """Collects the records of the fleet's engines, from `start` to `close`."""

    def __init__(
        self, fleet: Fleet, writer: LedgerWriter, wall: Callable[[], float] = time.time
    ) -> None:
        self._fleet = fleet
        self._writer = writer
        self._wall = wall
        self._upstream = UpstreamClient()
        self._logs: dict[str, EngineLog] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._decoder = msgspec.msgpack.Decoder(UsagePage)

    @property
    def logs(self) -> list[EngineLog]:
        """All engines that are asked."""
        return list(self._logs.values())

    @property
    def lag_s(self) -> float:
        """Age of the oldest known record that is not in the ledger; 0 if all are."""
        now_s = self._wall()
        return max((now_s - x.oldest_s for x in self.logs if x.oldest_s is not None), default=0.0)

    @property
    def seen(self) -> list[ReplicaSeen]:
        """Replicas that hold devices."""
        return [
            ReplicaSeen(log.replica.id, log.model, log.replica.metadata.facts.devices)
            for log in self.logs
        ]

    def start(self) -> None:
        """Ask the engines there are, and all that come."""
        self._fleet.subscribe(self._sync)
        self._sync()

    async def close(self) -> None:
        """Stop asking; engines keep what is not confirmed."""
        self._fleet.unsubscribe(self._sync)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._upstream.close()

    def _sync(self) -> None:
        present = {
            replica.id: (replica, model.name)
            for model in self._fleet.models
            for replica in model.replicas.values()
        }
        for id_, log in self._logs.items():
            log.is_gone = id_ not in present
        for id_ in present.keys() - self._logs.keys():
            log = self._logs[id_] = EngineLog(*present[id_])
            following = self._follow(log)
            self._tasks[id_] = asyncio.create_task(following, name=f"usage-{id_}")

    async def _follow(self, log: EngineLog) -> None:
        delay_s, clock = MIN_DELAY_S, asyncio.get_running_loop().time
        try:
            while True:
                began_s = clock()
                if await self._ask(log):
                    delay_s = MIN_DELAY_S
                    await asyncio.sleep(max(0.0, PERIOD_S - (clock() - began_s)))
                elif log.is_gone:
                    return
                else:
                    await asyncio.sleep(delay_s)
                    delay_s = min(MAX_DELAY_S, 2 * delay_s)
        finally:
            del self._logs[log.replica.id], self._tasks[log.replica.id]

    async def _ask(self, log: EngineLog) -> bool:
        """Get the next records, and write them; False if the engine does not answer."""
        try:
            page = await self._get(log)
        except (TimeoutError, UpstreamFailed, ValueError) as error:
            logger.debug("usage of replica %s cannot be read: %s", log.replica.id, error)
            return False
        if page.dropped > log.dropped:
            logger.error(
                "replica %s dropped %d usage records before they could be read",
                *(log.replica.id, page.dropped - log.dropped),
            )
        log.kept, log.dropped = page.kept, page.dropped
        if page.records:
            log.oldest_s = page.records[0].ended_s
            await self._writer.write_batch(EngineBatch(log.replica.id, page.epoch, page.records))
            log.epoch, log.confirmed = page.epoch, page.records[-1].seq
            log.kept -= len(page.records)
        log.oldest_s = None
        return True

    async def _get(self, log: EngineLog) -> UsagePage:
        path = f"{USAGE_PATH}?epoch={log.epoch}&confirmed={log.confirmed}"
        headers = engine_headers((), log.replica.metadata.key, b"accounts")
        async with asyncio.timeout(TIMEOUT_S):
            response = await self._upstream.request(log.replica.address, "GET", path, headers)
            with contextlib.closing(response):
                body = await read_all(response, PAGE_BYTES)
        if response.status != 200:
            raise UpstreamFailed(f"The engine answered {response.status} to {USAGE_PATH}.")
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not usage: {error}") from None
