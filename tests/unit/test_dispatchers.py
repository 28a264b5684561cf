"""A dispatcher for each model, for as long as there is the model."""

import gc
import random

from gateway.routing.dispatchers import Dispatchers
from gateway.routing.fleet import Model


def test_a_model_keeps_its_dispatcher() -> None:
    """And no other model has it, though it be of the same name."""
    dispatchers = Dispatchers(random.Random(1), lambda: 0.0)  # noqa: S311 - breaks ties only
    model, namesake = Model("m", created_s=1), Model("m", created_s=2)

    assert dispatchers.of(model) is dispatchers.of(model)
    assert dispatchers.of(model) is not dispatchers.of(namesake)


def test_a_dispatcher_goes_with_its_model() -> None:
    """What was learned of a model that is gone takes no memory."""
    dispatchers = Dispatchers(random.Random(1), lambda: 0.0)  # noqa: S311 - breaks ties only
    model = Model("m", created_s=1)
    dispatchers.of(model)

    del model
    gc.collect()

    assert len(dispatchers) == 0
