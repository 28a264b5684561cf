"""Client of all replicas' telemetry: one subscription to each replica in the fleet."""

import asyncio
import logging
import math
import random
from collections.abc import Sequence

from gateway.errors.upstream import UpstreamFailed
from gateway.routing.fleet import Fleet, Replica
from gateway.serving.pool import ModelPool, ModelPools
from gateway.serving.responsiveness import Responsiveness
from gateway.serving.settlements import Settlements
from gateway.telemetry.update import TELEMETRY_PATH, Finished, Update, UpdateReader
from gateway.upstream.client import UpstreamClient
from gateway.upstream.headers import engine_headers
from gateway.upstream.response import EngineResponse

MIN_DELAY_S = 0.1
MAX_DELAY_S = 5.0
SILENCE_S = 4.0
"""An engine sends something every second, if only that it is there."""
LATE_SHARE = 0.6
"""Share of that time after which others are preferred to an engine, which may only be late."""
HEARD_PERIOD_S = 0.02
GRACE_S = 1.0
"""Extra time to read what an engine sent while this process was too busy to read."""
STUCK_BACKOFF_S = 15.0
"""How long others are preferred to a stuck engine, unless its telemetry is back: longer than a new
subscription takes."""
LAST_REPORT_S = 30.0
"""Longest silence of an engine that has left the fleet and still finishes what it has."""

FINISHED_AT_ONCE = 8
"""Requests of a frame that are accounted for before the event loop runs anything else: a busy
engine's frame has so many that clients would notice."""

logger = logging.getLogger(__name__)


class TelemetryClient:
    """Subscribes to the fleet's replicas as they come and go, from `start` to `close`.

    Updates go to the scheduler of their model. A broken subscription is renewed, at once at first
    and then less and less often. An engine that falls silent, or makes no progress, is given up:
    requests that wait for its answers may try elsewhere. Where the model has no other healthy
    engine, it is waited for. `relayed`: the connections that carry the requests. An engine that has
    left the fleet is followed while it finishes what it has: those requests count against limits.
    `settlements` hear what engines report of usage.
    """

    def __init__(
        self,
        fleet: Fleet,
        pools: ModelPools,
        relayed: UpstreamClient,
        rng: random.Random,
        silence_s: float = SILENCE_S,
        *,
        settlements: Settlements | None = None,
    ) -> None:
        self._settlements = settlements
        self._fleet = fleet
        self._pools = pools
        self._relayed = relayed
        self._upstream = UpstreamClient()
        self._rng = rng
        self._silence_s = silence_s
        self._responsiveness = Responsiveness()
        self._troubles: dict[Replica, str] = {}
        """Why each subscription broke off last, as logged."""
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self._pool_of: dict[Replica, ModelPool] = {}
        self._heard: set[Replica] = set()
        """Replicas whose telemetry has come at least once."""
        self._leaving: dict[Replica, asyncio.Task[None]] = {}
        """Subscriptions to replicas that have left the fleet: for what they still run."""
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Subscribe to the replicas there are, and to all that come."""
        self._fleet.subscribe(self._sync)
        self._sync()

    async def close(self) -> None:
        """End all subscriptions."""
        self._fleet.unsubscribe(self._sync)
        for replica in list(self._tasks):
            self._end(replica)
        for task in self._leaving.values():
            self._cancel(task)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._upstream.close()

    async def wait_until_heard(self) -> None:
        """Wait until every replica has told what it holds and runs."""
        while not self._heard.issuperset(self._tasks):  # noqa: ASYNC110 - only at the start
            await asyncio.sleep(HEARD_PERIOD_S)

    def _sync(self) -> None:
        wanted = {r: model for model in self._fleet.models for r in model.replicas.values()}
        for replica in self._tasks.keys() - wanted.keys():
            reservations = self._pool_of[replica].scheduler.replicas.reservations
            if self._settlements is None and reservations.is_idle(replica.id):
                self._end(replica)
            else:
                self._hear_out(replica)
        for replica in wanted.keys() - self._tasks.keys():
            pool = self._pool_of[replica] = self._pools.of(wanted[replica])
            pool.scheduler.replicas.reservations.follow(replica.id)
            following = self._follow(pool, replica)
            self._tasks[replica] = asyncio.create_task(following, name=f"telemetry-{replica.id}")

    def _hear_out(self, replica: Replica) -> None:
        """Follow a replica that has left the fleet until its engine ends the subscription."""
        task = self._forget(replica)
        self._leaving[replica] = task
        task.add_done_callback(lambda _: self._forget_left(replica))

    def _end(self, replica: Replica) -> None:
        self._cancel(self._forget(replica))
        self._pool_of.pop(replica).scheduler.replicas.reservations.record_left(replica.id)

    def _forget_left(self, replica: Replica) -> None:
        del self._leaving[replica]
        self._troubles.pop(replica, None)
        self._pool_of.pop(replica).scheduler.replicas.reservations.record_left(replica.id)

    def _forget(self, replica: Replica) -> asyncio.Task[None]:
        self._heard.discard(replica)
        self._responsiveness.forget(replica)
        self._troubles.pop(replica, None)
        return self._tasks.pop(replica)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.cancel()

    async def _follow(self, pool: ModelPool, replica: Replica) -> None:
        delay_s = MIN_DELAY_S
        was_heard = False
        while replica not in self._leaving:
            is_heard = await self._subscribe(pool, replica)
            was_heard = was_heard or is_heard
            pool.scheduler.record_telemetry_lost(replica.id)
            if was_heard:
                # It may be dead, and would look idle until Serve removes it.
                pool.scheduler.replicas.back_off(replica)
            delay_s = MIN_DELAY_S if is_heard else min(MAX_DELAY_S, 2 * delay_s)
            await asyncio.sleep(delay_s * self._rng.uniform(0.5, 1.0))

    async def _subscribe(self, pool: ModelPool, replica: Replica) -> bool:
        """Process a replica's telemetry until it breaks off; return whether there was any."""
        response: EngineResponse | None = None
        is_heard = False
        try:
            response = await self._open(replica)
            reader = UpdateReader()
            while not response.is_finished:
                data = await self._read(pool, replica, response)
                for update in reader.feed(data):
                    await self._process(pool, replica, update)
                    if not is_heard and replica not in self._leaving:
                        is_heard = True
                        self._heard.add(replica)
                        self._troubles.pop(replica, None)
                        pool.scheduler.replicas.clear_backoff(replica)
        except TimeoutError:
            self._give_up(pool, replica, f"sent no telemetry for {self._silence_s:g} s")
        except (UpstreamFailed, ValueError) as error:
            self._log_trouble(replica, str(error))
        except Exception:
            # A defect of the gateway: without another try the replica's state would never change.
            logger.exception("telemetry of replica %s could not be processed", replica.id)
        finally:
            if response is not None:
                response.close()
        return is_heard

    def _log_trouble(self, replica: Replica, why: str) -> None:
        """Log why a subscription broke off, unless the last one broke off for the same reason."""
        if self._troubles.get(replica) != why:
            self._troubles[replica] = why
            logger.info("telemetry of replica %s broke off: %s", replica.id, why)

    async def _read(self, pool: ModelPool, replica: Replica, response: EngineResponse) -> bytes:
        late_s = LATE_SHARE * self._silence_s
        try:
            async with asyncio.timeout(late_s):
                return await response.read()
        except TimeoutError:
            pool.scheduler.replicas.back_off(replica)
        data = await self._read_late(replica, response, self._silence_s - late_s)
        pool.scheduler.replicas.clear_backoff(replica)
        return data

    async def _read_late(
        self, replica: Replica, response: EngineResponse, timeout_s: float
    ) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                return await response.read()
        except TimeoutError:
            # After a halt of this process the timer may fire before data that has arrived is read.
            grace_s = LAST_REPORT_S if replica in self._leaving else GRACE_S
            async with asyncio.timeout(grace_s):
                return await response.read()

    async def _process(self, pool: ModelPool, replica: Replica, update: Update) -> None:
        scheduler, limit = pool.scheduler, pool.stall_limit
        if self._settlements is not None and update.usage:
            self._settlements.record_usage(replica.id, update.usage)
        if replica in self._leaving:
            scheduler.replicas.reservations.record_update(replica.id, update)
            return
        is_known = scheduler.record_state(replica.id, update)
        self._responsiveness.record_update(pool, replica, update.stalled_s)
        step_s = replica.metadata.facts.step_tokens * scheduler.cost_model.estimates.prefill_s
        if limit.is_exceeded(update.stalled_s, step_s):
            why = f"has made no progress for {update.stalled_s:.0f} s"
            self._give_up(pool, replica, why, update.stalled_s)
            limit.extend()
        elif limit.is_extended and any(finished.prefill_s for finished in update.finished):
            limit.reset()
        if is_known:
            await _record_finished(pool, update.finished)

    def _give_up(
        self, pool: ModelPool, replica: Replica, why: str, stalled_s: float = math.inf
    ) -> None:
        if replica in self._leaving:
            return
        self._responsiveness.record_hang(pool, replica, why, stalled_s)
        if pool.scheduler.replicas.has_reachable_other(replica):
            pool.scheduler.replicas.back_off(replica, STUCK_BACKOFF_S)
            pool.scheduler.replicas.record_silence(replica, stalled_s)
            self._relayed.abort_connections(replica.address)

    async def _open(self, replica: Replica) -> EngineResponse:
        headers = engine_headers((), replica.metadata.key, b"telemetry")
        async with asyncio.timeout(self._silence_s):
            response = await self._upstream.request(replica.address, "GET", TELEMETRY_PATH, headers)
        if response.status != 200:
            response.close()
            raise UpstreamFailed(f"The engine answered {response.status} to {TELEMETRY_PATH}.")
        return response


async def _record_finished(pool: ModelPool, finished: Sequence[Finished]) -> None:
    """Account for the requests of a frame, a few at a time."""
    done = 0
    try:
        while done < len(finished):
            if done:
                await asyncio.sleep(0)
            some = finished[done : done + FINISHED_AT_ONCE]
            done += FINISHED_AT_ONCE
            pool.scheduler.record_finished(some)
    except asyncio.CancelledError:
        pool.scheduler.record_finished(finished[done:])
        raise
