"""State that pools share, for pools without a router around them."""

import random
import time
from collections.abc import Callable

from gateway.admission.cold_start import Wake
from gateway.routing.decision import DecisionLog
from gateway.serving.pool import SharedState


def shared_state(
    *,
    rng: random.Random | None = None,
    time_of_day: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    wake: Wake = lambda *_: None,
) -> SharedState:
    """Shared state in which only what a test looks at is its own."""
    return SharedState(
        decisions=DecisionLog(),
        rng=rng or random.Random(1),  # noqa: S311 - it breaks ties only
        time_of_day=time_of_day,
        monotonic=monotonic,
        wake=wake,
    )
