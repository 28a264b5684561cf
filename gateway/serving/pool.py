"""Model pools: the state that one router keeps for a model, made and closed with the model."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from gateway.admission.admission import Admission
from gateway.admission.cold_start import ColdStart, StartingRequest, Wake
from gateway.admission.eviction import EvictionIndex
from gateway.admission.queued_request import QueuedRequest
from gateway.errors.upstream import ModelUnavailable
from gateway.request.inference_request import InferenceRequest
from gateway.routing.decision import DecisionLog
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.routing.reservations import RecentUseListener, ReservationListener
from gateway.routing.scheduler import Scheduler
from gateway.serving.quarantine import Quarantine
from gateway.serving.retry_budget import ClientRetryBudgets, RetryBudget
from gateway.serving.stall_limit import StallLimit
from gateway.telemetry.demand import Demand

REMOVED_RETRY_S = 1.0
"""When to retry a model that has been removed: another of its name may be there by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedState:
    """State that the pools of one router have in common."""

    decisions: DecisionLog
    rng: random.Random
    time_of_day: Callable[[], float]
    """Seconds since the epoch: requests' priorities are made from it."""
    monotonic: Callable[[], float]
    wake: Wake
    router: str = ""
    """Id of this router, by which engines tell what it holds from what others hold."""
    on_held: Callable[[], None] | None = None
    """Called when other projects than before wait for a replica."""
    reservation_listeners: Sequence[ReservationListener] = ()
    """What follows the reservations of all models."""
    recent_use_listeners: Sequence[RecentUseListener] = ()
    """What has to know what was used before it could follow them."""
    all_queued: EvictionIndex[QueuedRequest] = field(default_factory=EvictionIndex)
    """Bytes of all requests in queues."""
    all_starting: EvictionIndex[StartingRequest] = field(default_factory=EvictionIndex)
    """Bytes of all requests that wait for engines to start."""


class ModelPool:
    """One model in one router: its scheduler, queues, starts and limits."""

    def __init__(self, model: ServedModel, shared: SharedState) -> None:
        self.model = model
        self.scheduler = Scheduler(
            model, shared.decisions, shared.rng, shared.time_of_day, shared.router
        )
        reservations = self.scheduler.replicas.reservations
        for listener in shared.reservation_listeners:
            reservations.add_listener(listener)
        for recent_listener in shared.recent_use_listeners:
            reservations.add_recent_listener(recent_listener)
        self.admission = Admission(model, self.scheduler, shared.all_queued, shared.monotonic)
        self.admission.fairness.held.on_change = shared.on_held
        self.cold_start = ColdStart(model, shared.wake, shared.all_starting)
        self.stall_limit = StallLimit()
        self.quarantine = Quarantine(model, self.scheduler.replicas, shared.monotonic)
        self._retry_budgets = ClientRetryBudgets()
        self._shadow_retry_budget = RetryBudget()

    def retry_budget(self, request: InferenceRequest) -> RetryBudget:
        """Budget that pays for a request's retries: its client's, within that of the model.

        Copies of shadowed requests have their own.
        """
        if request.is_copy:
            return self._shadow_retry_budget
        return self._retry_budgets.of(request.tenant)

    def update(self) -> None:
        """Follow a change of the fleet."""
        self.scheduler.replicas.sync()
        self.cold_start.update()
        self.admission.update()

    def close(self) -> None:
        """End the wait of all requests: the model has been removed."""
        message = f"The model `{self.model.name}` has gone."
        self.admission.close(partial(ModelUnavailable, message, REMOVED_RETRY_S))
        self.cold_start.close()
        self.scheduler.replicas.reservations.close()


class ModelPools:
    """Pools of all models in the fleet: the one subscription that makes and closes them."""

    def __init__(self, fleet: Fleet, shared: SharedState) -> None:
        self.decisions = shared.decisions
        self._fleet = fleet
        self._shared = shared
        self._pools: dict[ServedModel, ModelPool] = {}
        fleet.subscribe(self._update)
        self._update()

    def __iter__(self) -> Iterator[ModelPool]:
        """Pools of all models."""
        return iter(self._pools.values())

    def of(self, model: ServedModel) -> ModelPool:
        """The pool of a model that is in the fleet."""
        return self._pools[model]

    def has_telemetry(self, model: str, replica: str) -> bool:
        """Whether a replica of a model is there and its telemetry arrives."""
        for pool in self._pools.values():
            if pool.model.name == model:
                return pool.scheduler.replicas.has_telemetry(replica)
        return False

    @property
    def demands(self) -> dict[Replica, Demand]:
        """Load that waits for each replica, of all models."""
        demands: dict[Replica, Demand] = {}
        for pool in self:
            demands |= pool.admission.demands
        return demands

    def close(self) -> None:
        """Close all pools."""
        self._fleet.unsubscribe(self._update)
        while self._pools:
            self._pools.popitem()[1].close()

    def _update(self) -> None:
        models = self._fleet.models
        for model in self._pools.keys() - set(models):
            self._pools.pop(model).close()
        for model in models:
            if model not in self._pools:
                self._pools[model] = ModelPool(model, self._shared)
        for pool in self._pools.values():
            pool.update()
