"""Tests that each model has one scheduler, for as long as the model exists."""

import random

from gateway.routing.fleet import Fleet, ServedModel
from gateway.routing.schedulers import Schedulers


def test_a_model_keeps_its_scheduler_while_it_exists() -> None:
    """A model of the same name gets another one, and removed models take no memory."""
    fleet = Fleet()
    schedulers = Schedulers(fleet, random.Random(1), lambda: 0.0)  # noqa: S311 - breaks ties only
    model, namesake = ServedModel("m", created_s=1), ServedModel("m", created_s=2)
    fleet.add(model)
    former = schedulers.of(model)
    fleet.replace_replicas(model, [])
    kept = schedulers.of(model)
    fleet.add(namesake)
    count = len(schedulers)

    assert kept is former
    assert count == 0
    assert schedulers.of(namesake) is not former
