"""Schedulers of all models, and the log of their decisions."""

import random
from collections.abc import Callable

from gateway.routing.decision import DecisionLog
from gateway.routing.fleet import Fleet, ServedModel
from gateway.routing.scheduler import Scheduler


class Schedulers:
    """Makes the scheduler of a model on first use, and drops it with the model."""

    def __init__(self, fleet: Fleet, rng: random.Random, now: Callable[[], float]) -> None:
        self.log = DecisionLog()
        self._fleet = fleet
        self._rng = rng
        self._now = now
        self._schedulers: dict[ServedModel, Scheduler] = {}
        fleet.subscribe(self._forget_gone)

    def __len__(self) -> int:
        """Number of models that have a scheduler."""
        return len(self._schedulers)

    def of(self, model: ServedModel) -> Scheduler:
        """Return the scheduler of a model."""
        scheduler = self._schedulers.get(model)
        if scheduler is None:
            scheduler = Scheduler(model, self.log, self._rng, self._now)
            self._schedulers[model] = scheduler
        return scheduler

    def _forget_gone(self) -> None:
        for model in self._schedulers.keys() - set(self._fleet.models):
            del self._schedulers[model]
