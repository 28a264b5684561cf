"""When a request is sent to its replica: at once, when the replica has room, or not at all.

Method: a request is bound to the replica that costs least as soon as it comes, and held back in
that replica's lane only while the replica cannot start it (`Scheduler.has_room`): handed to
whichever came free, it would lose the cache. What is held counts in the costs of later choices.
When a replica comes, goes, drains or falls out of favour, all that are held choose again, some at a
time. A lane is looked at when its replica has news, so that nothing is done while nobody is held.

Tenants that have had their share lately (`RecentUsage`) leave a little of every replica free:
whoever has had less starts at once there, however many of the others' wait.

Who would wait too long, by the lane's own rate, is turned away at once; who has waited too long,
then. Where too many wait, or too many bytes of them, the newest of whoever has the most goes.

Where only the KV cache has no room for who is first, smaller ones pass it, but only for half of the
time that it may wait: then the replica is kept free for it (`Line`).
"""

import asyncio
import itertools
from collections.abc import Callable

from gateway.admission.eviction import EvictionIndex
from gateway.admission.queue_limits import QueueLimits, too_long
from gateway.admission.queued_request import AdmissionRequest, QueuedRequest, demand
from gateway.admission.recent_usage import RecentUsage
from gateway.admission.replica_queue import ReplicaQueue
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.scheduler import Scheduler
from gateway.telemetry import Demand

LOOK_S = 0.1
"""How often the standing of all replicas is looked at while requests are held."""
RECHOSEN = 32
"""Held requests that choose again before others get their turn on the event loop."""
PATIENCE = 0.5
"""Of its limit, how long one for which there is no room lets smaller ones pass."""


class Admission:
    """One model's. `stock`: all bodies that this router holds; `now` is in seconds."""

    def __init__(
        self,
        model: ServedModel,
        scheduler: Scheduler,
        stock: EvictionIndex[QueuedRequest],
        now: Callable[[], float],
    ) -> None:
        self._limits = QueueLimits(model, stock)
        self._scheduler = scheduler
        self._now = now
        self._lanes: dict[str, ReplicaQueue[QueuedRequest]] = {}
        self._held: dict[QueuedRequest, None] = {}
        self._shares = RecentUsage(now)
        self._numbers = itertools.count()
        self._sound: set[str] = set()
        """Replicas of good standing, when last looked at."""
        self._looked_s = 0.0
        self._news: set[str] = set()
        """Replicas whose lanes are to be looked at."""
        self._stale: dict[QueuedRequest, None] = {}
        """Those who are to choose again."""
        self._is_planned = False

    @property
    def held_interactive(self) -> int:
        """Interactive requests that are held back now."""
        return self._limits.held(is_batch=False)

    @property
    def held_batch(self) -> int:
        """Batch requests that are held back now."""
        return self._limits.held(is_batch=True)

    @property
    def demands(self) -> dict[Replica, Demand]:
        """What is held back for each replica, for its engine to know; O(held)."""
        held: dict[Replica, list[QueuedRequest]] = {}
        for each in self._held:
            held.setdefault(each.decision.replica, []).append(each)
        return {replica: demand(waiting) for replica, waiting in held.items()}

    async def admit(self, request: AdmissionRequest) -> Decision:
        """Wait until the request's replica can start it.

        The caller sends it there without awaiting anything else before: from here on it is not
        counted until then. Cancelled, it leaves nothing behind.

        Raises:
            Overloaded: it would wait too long, has waited too long, or too many wait.
            GatewayError: what choosing a replica raises, now or when it has to choose again.
        """
        decision = self._scheduler.choose(request.target, request.avoid)
        if self._may_pass(request, decision) and self._has_room(request, decision):
            self._count(request, decision)
            return decision
        held = self._bind(request, decision)
        self._limits.make_room(held, self._lane(held).wait_s(held))
        self._hold(held)
        try:
            with request.held():
                return await held.admitted
        finally:
            self._leave(held)

    def admit_at_once(self, request: AdmissionRequest) -> Decision:
        """The same for a request that is not to wait, nor to have any other go.

        Raises:
            Overloaded: its replica cannot start it now.
            GatewayError: what choosing a replica raises.
        """
        decision = self._scheduler.choose(request.target, request.avoid)
        if not (self._may_pass(request, decision) and self._has_room(request, decision)):
            raise self._limits.overloaded("its engines are busy", None)
        self._count(request, decision)
        return decision

    def follow(self) -> None:
        """The fleet has changed: those who are held may have to choose again."""
        if self._held:
            self._scheduler.replicas.sync()

    def close(self, error: Callable[[], Exception]) -> None:
        """The model is no more: end the wait of all, each with an error of its own."""
        for held in list(self._held):
            self._end(held, error())

    def _reject(self, held: QueuedRequest, reason: str) -> None:
        """Turn away one that waits; `reason` is for the client."""
        wait_s = self._lane(held).clear_s(is_batch=held.is_batch)
        self._end(held, self._limits.overloaded(reason, wait_s))

    def _may_pass(self, request: AdmissionRequest, decision: Decision) -> bool:
        """Whether a newcomer need not wait for those who are held."""
        lane = self._lanes.get(decision.replica.id)
        if lane is None or lane.is_free(is_batch=request.is_batch):
            return True
        is_first = not self._limits.has(request.tenant)
        return not request.is_batch and is_first and not self._shares.has_had(request.tenant)

    def _has_room(self, request: AdmissionRequest, decision: Decision) -> bool:
        return self._scheduler.has_room(decision, is_over_share=self._is_spared(request))

    def _is_spared(self, request: AdmissionRequest) -> bool:
        """Whether it leaves something free for those who have had less."""
        return not request.is_batch and self._shares.has_had(request.tenant)

    def _count(self, request: AdmissionRequest, decision: Decision) -> None:
        if not request.is_batch:
            self._shares.start(request.tenant, request.tokens(decision))

    def _bind(self, request: AdmissionRequest, decision: Decision) -> QueuedRequest:
        limit_s = self._wait_s(request)
        return QueuedRequest(
            tenant=request.tenant,
            tokens=request.tokens(decision),
            due_s=self._scheduler.due_s(decision),
            number=next(self._numbers),
            is_batch=request.is_batch,
            reject=self._reject,
            request=request,
            decision=decision,
            since_s=self._now(),
            limit_s=limit_s if request.limit_s is None else min(limit_s, request.limit_s),
        )

    def _wait_s(self, request: AdmissionRequest) -> float:
        return max(request.patience_s, self._limits.wait_s(is_batch=request.is_batch))

    def _lane(self, held: QueuedRequest) -> ReplicaQueue[QueuedRequest]:
        name = held.decision.replica.id
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = ReplicaQueue(self._now)
        return lane

    def _hold(self, held: QueuedRequest) -> None:
        if not self._held:
            self._look()
            self._scheduler.replicas.subscribe(self._plan)
        self._held[held] = None
        self._limits.add(held)
        self._lane(held).add(held)
        self._scheduler.hold(held.decision, held.request.target)
        held.is_waiting = True
        limit_s = self._wait_s(held.request)
        loop = held.admitted.get_loop()
        held.timer = loop.call_later(limit_s, self._reject, held, too_long(limit_s))
        self._plan(held.decision.replica.id)  # those before it may let it pass

    def _leave(self, held: QueuedRequest) -> None:
        """Its caller goes on, or has gone: whatever is left of it is taken away."""
        if held.is_waiting:
            self._lane(held).remove(held)
            self._forget(held)
        self._scheduler.discard(held.decision)
        self._plan(held.decision.replica.id)

    def _end(self, held: QueuedRequest, error: Exception) -> None:
        self._lane(held).remove(held)
        self._forget(held)
        self._scheduler.discard(held.decision)
        if not held.admitted.done():
            held.admitted.set_exception(error)

    def _release(self, held: QueuedRequest) -> None:
        self._forget(held)
        self._count(held.request, held.decision)
        self._scheduler.release(held.decision)
        held.admitted.set_result(held.decision.after_waiting(self._now() - held.since_s))

    def _forget(self, held: QueuedRequest) -> None:
        """Count one no more that has been taken out of its lane."""
        held.is_waiting = False
        del self._held[held]
        self._stale.pop(held, None)
        self._limits.remove(held)
        if held.timer is not None:
            held.timer.cancel()
        if not self._held:
            self._scheduler.replicas.unsubscribe(self._plan)

    def _plan(self, replica: str) -> None:
        """Have a replica's lane looked at when whatever is going on has come to its end."""
        self._news.add(replica)
        if not self._is_planned:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._take_news)

    def _take_news(self) -> None:
        self._is_planned = False
        news, self._news = self._news, set()
        is_known = all(
            self._scheduler.replicas.is_healthy(name) == (name in self._sound) for name in news
        )
        is_recent = self._now() < self._looked_s + LOOK_S
        if not (is_known and is_recent) and self._look():
            self._stale = dict(self._held)
        if self._stale:
            self._choose_again()
            news = set(self._lanes)
        for name in news:
            if lane := self._lanes.get(name):
                self._start(lane)

    def _look(self) -> bool:
        """Look at the standing of all replicas; whether that of any has changed."""
        known, self._sound = self._sound, self._scheduler.replicas.healthy()
        self._looked_s = self._now()
        self._lanes = {n: lane for n, lane in self._lanes.items() if lane or n in self._sound}
        return known != self._sound

    def _start(self, lane: ReplicaQueue[QueuedRequest]) -> None:
        """Release those that their replica can start."""
        while held := lane.take(self._fits, self._can_wait):
            if held.admitted.done():
                self._forget(held)  # cancelled, and its caller has not come to `_leave` yet
            else:
                self._release(held)

    def _fits(self, held: QueuedRequest) -> bool:
        if held in self._stale:
            return False
        return held.admitted.done() or self._has_room(held.request, held.decision)

    def _can_wait(self, held: QueuedRequest) -> bool:
        """Whether one that does not fit lets others pass, of which some may."""
        if held in self._stale or self._now() - held.since_s > PATIENCE * held.limit_s:
            return False
        return self._scheduler.has_slot(held.decision, is_over_share=self._is_spared(held.request))

    def _choose_again(self) -> None:
        for held in list(itertools.islice(self._stale, RECHOSEN)):
            del self._stale[held]
            self._scheduler.discard(held.decision)  # it must not stand in its own way
            try:
                decision = self._scheduler.choose(
                    held.request.target, held.request.avoid, decided_s=held.decision.decided_s
                )
            except Exception as error:  # noqa: BLE001 - it is the one's who waits for it
                self._end(held, error)
                continue
            self._rebind(held, decision)
        if self._stale:
            self._plan("")

    def _rebind(self, held: QueuedRequest, decision: Decision) -> None:
        if decision.replica is held.decision.replica:
            held.decision = decision
        else:
            self._lane(held).remove(held)
            held.decision = decision
            held.tokens, held.due_s = held.request.tokens(decision), self._scheduler.due_s(decision)
            self._lane(held).add(held)
        self._scheduler.hold(decision, held.request.target)
