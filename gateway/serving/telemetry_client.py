"""One subscription to the telemetry of every replica in the fleet."""

import asyncio
import logging
import random
from collections.abc import Callable

from gateway.errors import UpstreamFailed
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.routing.schedulers import Schedulers
from gateway.telemetry import TELEMETRY_PATH, Update, UpdateReader
from gateway.upstream.client import UpstreamClient
from gateway.upstream.headers import to_engine
from gateway.upstream.response import EngineResponse

FIRST_DELAY_S = 0.1
LAST_DELAY_S = 5.0
SILENCE_S = 4.0
"""An engine has something to say every second, if only that it is there."""
GRACE_S = 1.0
"""For what an engine said while it was us who did not listen."""
STUCK_BACKOFF_S = 15.0
"""How long others are preferred to one that is given up, unless it is heard again: longer than we
take to ask."""
LEAST_STALL_S = 10.0
LONG_STEPS = 4.0
"""Steps, as long as they get, without one that ends: then an engine is taken to be stuck."""
MOST_PATIENCE = 64.0

logger = logging.getLogger(__name__)


class TelemetryClient:
    """Follows the fleet's replicas as they come and go, from `start` to `close`.

    What they tell goes to the dispatcher of their model. A broken subscription is taken up again,
    at once at first and then less and less often. An engine that falls silent, or gets no further
    with its work, is given up: whoever waits for its answers may try elsewhere. Where no other
    engine of the model is well, it is waited for.
    """

    def __init__(
        self,
        fleet: Fleet,
        schedulers: Schedulers,
        relayed: UpstreamClient,
        now: Callable[[], float],
        rng: random.Random,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._fleet = fleet
        self._schedulers = schedulers
        self._relayed = relayed
        """Carries the requests."""
        self._upstream = UpstreamClient()
        self._now = now
        self._rng = rng
        self._silence_s = silence_s
        self._patience: dict[ServedModel, float] = {}
        """How much longer than usual a model's steps may take: work that was given up once too
        early would be given up again wherever it goes, and nothing be learned of it."""
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Follow the replicas there are, and all that come."""
        self._fleet.subscribe(self._sync)
        self._sync()

    async def close(self) -> None:
        """End all subscriptions."""
        self._fleet.unsubscribe(self._sync)
        for replica in list(self._tasks):
            self._end(replica)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._upstream.close()

    def _sync(self) -> None:
        self._patience = {m: p for m, p in self._patience.items() if m in self._fleet.models}
        wanted = {r: model for model in self._fleet.models for r in model.replicas.values()}
        for replica in self._tasks.keys() - wanted.keys():
            self._end(replica)
        for replica in wanted.keys() - self._tasks.keys():
            following = self._follow(wanted[replica], replica)
            self._tasks[replica] = asyncio.create_task(following, name=f"telemetry-{replica.id}")

    def _end(self, replica: Replica) -> None:
        task = self._tasks.pop(replica)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.cancel()

    async def _follow(self, model: ServedModel, replica: Replica) -> None:
        delay_s = FIRST_DELAY_S
        has_spoken = False
        while True:
            has_heard = await self._listen(model, replica)
            has_spoken = has_spoken or has_heard
            self._schedulers.of(model).record_telemetry_lost(replica.id)
            if has_spoken:
                # It may be dead, and would look idle until Serve takes it out.
                self._schedulers.of(model).replicas.back_off(replica)
            delay_s = FIRST_DELAY_S if has_heard else min(LAST_DELAY_S, 2 * delay_s)
            await asyncio.sleep(delay_s * self._rng.uniform(0.5, 1.0))

    async def _listen(self, model: ServedModel, replica: Replica) -> bool:
        """Take in a replica's telemetry until it breaks off; whether there was any."""
        response: EngineResponse | None = None
        has_heard = False
        try:
            response = await self._open(replica)
            reader = UpdateReader()
            while not response.is_finished:
                data = await self._read(response)
                for update in reader.feed(data):
                    self._hear(model, replica, update)
                    if not has_heard:
                        has_heard = True
                        self._schedulers.of(model).replicas.clear_backoff(replica)
        except TimeoutError:
            self._give_up(model, replica, "has fallen silent")
        except (UpstreamFailed, ValueError) as error:
            logger.info("telemetry of replica %s broke off: %s", replica.id, error)
        except Exception:
            # A defect of ours: without another try the replica would stay as it is known now.
            logger.exception("telemetry of replica %s could not be taken in", replica.id)
        finally:
            if response is not None:
                response.close()
        return has_heard

    async def _read(self, response: EngineResponse) -> bytes:
        try:
            async with asyncio.timeout(self._silence_s):
                return await response.read()
        except TimeoutError:
            # A busy or halted machine finds the time over before it has looked at what came.
            async with asyncio.timeout(GRACE_S):
                return await response.read()

    def _hear(self, model: ServedModel, replica: Replica, update: Update) -> None:
        scheduler = self._schedulers.of(model)
        scheduler.record_update(replica.id, update)
        step_s = replica.metadata.facts.step_tokens * scheduler.cost_model.estimates.prefill_s
        patience = self._patience.get(model, 1.0)
        if update.stalled_s > patience * max(LEAST_STALL_S, LONG_STEPS * step_s):
            self._give_up(model, replica, f"has not got on for {update.stalled_s:.0f} s")
            self._patience[model] = min(2 * patience, MOST_PATIENCE)
        elif patience > 1 and any(finished.prefill_s for finished in update.finished):
            del self._patience[model]  # its speed is known now

    def _give_up(self, model: ServedModel, replica: Replica, why: str) -> None:
        scheduler = self._schedulers.of(model)
        if scheduler.replicas.has_reachable_other(replica):
            logger.warning("replica %s of %s %s; it is given up", replica.id, model.name, why)
            scheduler.replicas.back_off(replica, STUCK_BACKOFF_S)
            self._relayed.drop(replica.address)

    async def _open(self, replica: Replica) -> EngineResponse:
        headers = to_engine((), replica.metadata.key, b"telemetry")
        async with asyncio.timeout(self._silence_s):
            response = await self._upstream.request(replica.address, "GET", TELEMETRY_PATH, headers)
        if response.status != 200:
            response.close()
            raise UpstreamFailed(f"The engine answered {response.status} to {TELEMETRY_PATH}.")
        return response
