"""An admission for each model, and what all of them hold."""

from collections.abc import Callable, Collection
from functools import partial

from gateway.admission.admission import Admission
from gateway.admission.eviction import EvictionIndex
from gateway.admission.queued_request import QueuedRequest
from gateway.errors import ModelUnavailable
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.routing.schedulers import Schedulers
from gateway.telemetry import Demand

GONE_RETRY_S = 1.0
"""When to ask again for a model that has gone: another of its name may be there by then."""


class Admissions:
    """Makes a model's admission when it is first asked for; it goes when the model leaves."""

    def __init__(self, fleet: Fleet, schedulers: Schedulers, now: Callable[[], float]) -> None:
        self._fleet = fleet
        self._schedulers = schedulers
        self._now = now
        self._stock: EvictionIndex[QueuedRequest] = EvictionIndex()
        self._admissions: dict[ServedModel, Admission] = {}
        fleet.subscribe(self._follow)

    @property
    def all(self) -> Collection[Admission]:
        """Those of all models that have one."""
        return self._admissions.values()

    @property
    def demands(self) -> dict[Replica, Demand]:
        """What is held back for each replica of all models."""
        demands: dict[Replica, Demand] = {}
        for admission in self._admissions.values():
            demands |= admission.demands
        return demands

    def of(self, model: ServedModel) -> Admission:
        """The admission of a model."""
        admission = self._admissions.get(model)
        if admission is None:
            scheduler = self._schedulers.of(model)
            admission = Admission(model, scheduler, self._stock, self._now)
            self._admissions[model] = admission
        return admission

    def _follow(self) -> None:
        for model in self._admissions.keys() - set(self._fleet.models):
            message = f"The model `{model.name}` has gone."
            self._admissions.pop(model).close(partial(ModelUnavailable, message, GONE_RETRY_S))
        for admission in self._admissions.values():
            admission.follow()
