"""Admission of requests to one model: each is sent to its replica at once, waits, or is rejected.

Method: a request is bound to the replica that costs least as soon as it arrives, and waits in the
queue of that replica only while the replica cannot start it (`Scheduler.has_room`): handed to
whichever replica is free first, it would lose the cache. Queued requests count in the costs of
later choices. When a replica joins, leaves, drains or becomes unhealthy, all queued requests choose
again, some at a time. A queue is served when its replica has changed, so an empty queue costs
nothing.

Tenants over their fair share of recent usage (`RecentUsage`) leave a little of every replica free:
a tenant below its share starts at once there, however many requests of others wait.

A request that would wait too long, by the measured rate of its queue, is rejected at once; one that
has waited too long is rejected then. Where too many requests wait, or too many bytes of them, the
newest request of the largest share is rejected (`QueueLimits`).

Among the projects of authenticated clients, time is shared out over all routers by
`ProjectFairness`; what is said of fair shares above then holds for all routers together. Requests
that leave room to what other routers hold wait in their queue.

Where only the KV cache lacks room for the first request in a queue, smaller ones pass it, but only
for half of the time that it may wait: then the replica is kept free for it (`BypassQueue`).
"""

import asyncio
import itertools
from collections.abc import Callable
from functools import partial

from gateway.admission.bypass_queue import StartVerdict
from gateway.admission.eviction import EvictionIndex
from gateway.admission.project_fairness import ProjectFairness
from gateway.admission.queue_limits import QueueLimits
from gateway.admission.queued_request import AdmissionRequest, QueuedRequest, demand
from gateway.admission.recent_usage import RecentUsage
from gateway.admission.replica_queue import ReplicaQueue
from gateway.admission.start_rules import StartRules
from gateway.errors.limits import Overloaded
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.scheduler import Scheduler
from gateway.telemetry.demand import Demand

HEALTH_CHECK_S = 0.1
"""How often the health of all replicas is checked while requests are queued."""
RECHOICE_BATCH = 32
"""Queued requests that choose a replica again before the event loop runs anything else."""
BYPASS_SHARE = 0.5
"""Share of its wait limit during which a request that does not fit lets smaller ones pass."""
PREDICTED_SHARE = 0.8
"""Share of its wait limit that a request's predicted wait may have: predictions err, and a request
that is rejected late has waited in vain."""
RETRY_DELAY_S = 0.001
"""Timers may fire a little early."""
RETRY_S = 1.0
"""When a client may retry, where no rate has been measured."""


class Admission:
    """Admission to one model. `all_queued`: bytes of the queued requests of all models.

    `now`: seconds, by a clock that never goes back.
    """

    def __init__(
        self,
        model: ServedModel,
        scheduler: Scheduler,
        all_queued: EvictionIndex[QueuedRequest],
        now: Callable[[], float],
    ) -> None:
        self._model = model
        self._limits = QueueLimits(model, all_queued)
        self._scheduler = scheduler
        self._now = now
        self._queues: dict[str, ReplicaQueue[QueuedRequest]] = {}
        self._queued: dict[QueuedRequest, None] = {}
        self.fairness = ProjectFairness(scheduler.replicas, scheduler.cost_model, now)
        self._rules = StartRules(scheduler, self.fairness, RecentUsage(now))
        self._numbers = itertools.count()
        self._healthy: set[str] = set()
        """Healthy replicas at the last check."""
        self._checked_s = 0.0
        self._changed: set[str] = set()
        """Replicas whose queues are to be served."""
        self._stale: dict[QueuedRequest, None] = {}
        """Requests that are to choose a replica again."""
        self._is_scheduled = False
        self._retrying: set[str] = set()
        """Replicas whose queues are served again once their requests have yielded long enough."""

    @property
    def queued_interactive(self) -> int:
        """Interactive requests that wait now."""
        return self._limits.waiting.weight_of(is_batch=False)

    @property
    def queued_batch(self) -> int:
        """Batch requests that wait now."""
        return self._limits.waiting.weight_of(is_batch=True)

    @property
    def demands(self) -> dict[Replica, Demand]:
        """Load that waits for each replica, for its engine to report; O(queued requests)."""
        queued: dict[Replica, list[QueuedRequest]] = {}
        for each in self._queued:
            queued.setdefault(each.decision.replica, []).append(each)
        return {replica: demand(waiting) for replica, waiting in queued.items()}

    def submit(self, request: AdmissionRequest) -> Decision | QueuedRequest:
        """Admit a request now, or queue it: then the caller awaits `QueuedRequest.wait()` at once.

        The caller of an admitted request sends it without awaiting anything else before: until then
        the replica does not count it.

        Raises:
            Overloaded: the request would wait too long, or too many requests wait.
            GatewayError: the error of choosing a replica.
        """
        decision = self._scheduler.choose(request.target, request.avoid)
        if self._can_start(request, decision):
            return decision
        queued = self._bind(request, decision)
        self._check_wait(queued)
        self._enqueue(queued)
        return queued

    def submit_without_queueing(self, request: AdmissionRequest) -> Decision:
        """Admit a request that must neither wait nor have another one rejected.

        Raises:
            Overloaded: the replica cannot start it now.
            GatewayError: the error of choosing a replica.
        """
        decision = self._scheduler.choose(request.target, request.avoid)
        if not self._can_start(request, decision):
            raise self._limits.overloaded("its engines are busy", RETRY_S)
        return decision

    def max_wait_s(self, request: AdmissionRequest) -> float:
        """How long a request may wait from now on; 0 where it has waited too long."""
        limits = self._model.options.queue
        limit_s = limits.batch_max_wait_s if request.is_batch else limits.max_wait_s
        return max(request.min_wait_s, limit_s - request.waited_s)

    def update(self) -> None:
        """Follow a change of the fleet: queued requests may have to choose again."""
        if self._queued:
            self._scheduler.replicas.sync()

    def close(self, error: Callable[[], Exception]) -> None:
        """End the wait of all queued requests, each with an error of its own."""
        for queued in list(self._queued):
            self._fail(queued, error())

    def reject(self, queued: QueuedRequest, reason: str) -> None:
        """End the wait of a request with an error; `reason` is for the client."""
        drain_s = self._queue(queued).drain_s(is_batch=queued.is_batch)
        self._fail(queued, self._limits.overloaded(reason, drain_s or RETRY_S))

    def remove(self, queued: QueuedRequest) -> None:
        """Forget a request whose caller no longer waits for it."""
        if queued.is_waiting:
            self._queue(queued).remove(queued)
            self._uncount(queued)
        elif queued.project and queued.is_released:
            queued.is_released = False
            self.fairness.record_discarded(queued)
        self._scheduler.discard(queued.decision)
        self._schedule(queued.decision.replica.id)

    def _can_start(self, request: AdmissionRequest, decision: Decision) -> bool:
        """Whether a request is admitted at once; then it counts as usage."""
        can_start = self._may_pass(request, decision) and (
            self._rules.check_room(request, decision) is StartVerdict.START
        )
        if can_start:
            self._rules.record_start(request, decision)
        return can_start

    def _may_pass(self, request: AdmissionRequest, decision: Decision) -> bool:
        """Whether a new request need not wait behind those that are queued."""
        queue = self._queues.get(decision.replica.id)
        if queue is None or queue.is_free(is_batch=request.is_batch):
            return True
        if request.is_batch or self._limits.has(request.tenant):
            return False
        return self._rules.is_owed(request)

    def _bind(self, request: AdmissionRequest, decision: Decision) -> QueuedRequest:
        limit_s = self.max_wait_s(request)
        time_left_s = request.time_left_s
        return QueuedRequest(
            tenant=request.tenant,
            tokens=request.tokens(decision),
            priority_s=self._scheduler.priority_s(decision),
            number=next(self._numbers),
            is_batch=request.is_batch,
            project=request.project,
            weight=request.target.request.weight,
            cost_s=self._scheduler.cost_s(decision) if request.project else 0.0,
            queue=self,
            request=request,
            decision=decision,
            since_s=self._now(),
            limit_s=limit_s if time_left_s is None else min(limit_s, time_left_s),
        )

    def _queue(self, queued: QueuedRequest) -> ReplicaQueue[QueuedRequest]:
        name = queued.decision.replica.id
        queue = self._queues.get(name)
        if queue is None:
            turns = partial(self.fairness.turns, name)
            queue = ReplicaQueue(self._now, turns(is_batch=False), turns(is_batch=True))
            self._queues[name] = queue
        return queue

    def _check_wait(self, queued: QueuedRequest) -> None:
        """Reject the request, or others in its place, where it would wait too long.

        Raises:
            Overloaded: it is this request that is rejected.
        """
        wait_s, limit_s = self._queue(queued).wait_s(queued), queued.limit_s
        has_waited_too_long = self.max_wait_s(queued.request) <= 0
        if has_waited_too_long or (wait_s is not None and wait_s > PREDICTED_SHARE * limit_s):
            raise self._too_long(queued.request, limit_s, wait_s)
        self._limits.make_room(queued, self._model.options.queue.max_requests, wait_s or RETRY_S)

    def _too_long(
        self, request: AdmissionRequest, limit_s: float, wait_s: float | None
    ) -> Overloaded:
        reason = _too_long(max(0.0, limit_s) + request.waited_s)
        return self._limits.overloaded(reason, wait_s or RETRY_S)

    def _enqueue(self, queued: QueuedRequest) -> None:
        if not self._queued:
            self._check_health()
            self._scheduler.replicas.subscribe(self._schedule)
        self._queued[queued] = None
        self._limits.add(queued)
        self._queue(queued).add(queued)
        self._scheduler.hold(queued.decision, queued.request.target)
        queued.is_waiting = True
        if queued.project:
            self.fairness.record_queued(queued, queued.decision.replica.id)
        limit_s = self.max_wait_s(queued.request)
        reason = _too_long(limit_s + queued.request.waited_s)
        loop = queued.admitted.get_loop()
        queued.timer = loop.call_later(limit_s, self.reject, queued, reason)
        self._schedule(queued.decision.replica.id)  # those before it may let it pass

    def _fail(self, queued: QueuedRequest, error: Exception) -> None:
        self._queue(queued).remove(queued)
        self._uncount(queued)
        self._scheduler.discard(queued.decision)
        if not queued.admitted.done():
            queued.admitted.set_exception(error)

    def _release(self, queued: QueuedRequest) -> None:
        self._uncount(queued)
        self._rules.record_start(queued.request, queued.decision)
        if queued.project:
            queued.is_released = True
            self.fairness.record_released(queued)
        self._scheduler.release(queued.decision)
        queued.admitted.set_result(queued.decision.after_waiting(self._now() - queued.since_s))

    def _uncount(self, queued: QueuedRequest) -> None:
        """Stop counting a request that has been taken out of its queue."""
        queued.is_waiting = False
        del self._queued[queued]
        self._stale.pop(queued, None)
        self._limits.remove(queued)
        if queued.project:
            self.fairness.record_unqueued(queued, queued.decision.replica.id)
        if queued.timer is not None:
            queued.timer.cancel()
        if not self._queued:
            self._scheduler.replicas.unsubscribe(self._schedule)

    def _schedule(self, replica: str) -> None:
        """Serve a replica's queue soon, once the current callback is done."""
        self._changed.add(replica)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._serve_changed)

    def _serve_changed(self) -> None:
        self._is_scheduled = False
        changed, self._changed = self._changed, set()
        is_known = all(
            self._scheduler.replicas.is_healthy(name) == (name in self._healthy) for name in changed
        )
        is_recent = self._now() < self._checked_s + HEALTH_CHECK_S
        if not (is_known and is_recent) and self._check_health():
            self._stale = dict(self._queued)
        if self._stale:
            self._choose_again()
            changed = set(self._queues)
        for name in changed:
            if queue := self._queues.get(name):
                self._serve(queue)
                self._retry(name)

    def _check_health(self) -> bool:
        """Check the health of all replicas; return whether that of any has changed."""
        known, self._healthy = self._healthy, self._scheduler.replicas.healthy()
        self._checked_s = self._now()
        self._queues = {
            n: queue for n, queue in self._queues.items() if queue or n in self._healthy
        }
        return known != self._healthy

    def _serve(self, queue: ReplicaQueue[QueuedRequest]) -> None:
        """Release the requests that their replica can start."""
        while queued := queue.pop(self._check):
            if queued.admitted.done():
                self._uncount(queued)  # cancelled, and its caller has not called `remove` yet
            else:
                self._release(queued)

    def _retry(self, replica: str) -> None:
        """Serve a queue again, soon after its requests have yielded for long enough."""
        retry_s = self.fairness.retry_s(replica)
        if retry_s == 0:  # the queue has just been served, and nothing yields there any longer
            self.fairness.record_full(replica)
        elif retry_s is not None and replica not in self._retrying:
            self._retrying.add(replica)
            asyncio.get_running_loop().call_later(retry_s + RETRY_DELAY_S, self._end_yield, replica)

    def _end_yield(self, replica: str) -> None:
        self._retrying.discard(replica)
        self._schedule(replica)

    def _check(self, queued: QueuedRequest) -> StartVerdict:
        """Whether a request can start now, or others may pass it."""
        if queued in self._stale:
            return StartVerdict.WAIT
        if queued.admitted.done():
            return StartVerdict.START
        verdict = self._rules.check_room(queued.request, queued.decision)
        if verdict is StartVerdict.WAIT and self._lets_pass(queued):
            return StartVerdict.STEP_ASIDE
        return verdict

    def _lets_pass(self, queued: QueuedRequest) -> bool:
        """Whether a request that does not fit lets smaller ones pass, where those could start."""
        if self._now() - queued.since_s > BYPASS_SHARE * queued.limit_s:
            return False
        return self._rules.has_slot(queued.request, queued.decision)

    def _choose_again(self) -> None:
        for queued in list(itertools.islice(self._stale, RECHOICE_BATCH)):
            del self._stale[queued]
            self._scheduler.discard(queued.decision)  # it must not count against itself
            try:
                decision = self._scheduler.choose(
                    queued.request.target, queued.request.avoid, decided_s=queued.decision.decided_s
                )
            except Exception as error:  # noqa: BLE001 - it belongs to the request that waits
                self._fail(queued, error)
                continue
            self._rebind(queued, decision)
        if self._stale:
            self._schedule("")

    def _rebind(self, queued: QueuedRequest, decision: Decision) -> None:
        if decision.replica is queued.decision.replica:
            queued.decision = decision
        else:
            self._queue(queued).remove(queued)
            self.fairness.record_moved(queued, queued.decision.replica.id, decision.replica.id)
            queued.decision = decision
            queued.tokens = queued.request.tokens(decision)
            queued.priority_s = self._scheduler.priority_s(decision)
            if queued.project:
                queued.cost_s = self._scheduler.cost_s(decision)
            self._queue(queued).add(queued)
        self._scheduler.hold(decision, queued.request.target)


def _too_long(limit_s: float) -> str:
    return f"the request waits longer than {round(limit_s, 2):g} s"
