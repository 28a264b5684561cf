"""Replicas that hang: which ones, since when, and one log line at the beginning and at the end.

A replica hangs if nothing is heard of it, or if its engine makes no progress. It responds again at
its next update, if it was silent, and after its next step, if that took too long.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.routing.fleet import Replica
from gateway.serving.pool import ModelPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Hang:
    began_s: float
    stalled_s: float
    """How long it had made no progress; infinite if it is silent."""


class Responsiveness:
    """Which replicas hang, as one router sees it; `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._hangs: dict[Replica, _Hang] = {}

    def record_hang(
        self, pool: ModelPool, replica: Replica, why: str, stalled_s: float = math.inf
    ) -> None:
        """Record that a replica hangs.

        `stalled_s`: for how long it has made no progress; infinite if nothing is heard of it.
        """
        previous = self._hangs.get(replica)
        began_s = self._now() if previous is None else previous.began_s
        self._hangs[replica] = _Hang(began_s, stalled_s)
        if previous is not None:
            return
        replicas = pool.scheduler.replicas
        replicas.record_responding(replica, is_responding=False)
        others = replicas.has_reachable_other(replica)
        logger.warning(
            "model %s: replica %s does not respond: it %s; %s, and it is replaced unless it"
            " recovers",
            *(pool.model.name, replica.id, why),
            "its requests go to others" if others else "its requests wait, there is no other",
        )

    def record_update(self, pool: ModelPool, replica: Replica, stalled_s: float) -> None:
        """Record that a replica is heard, and for how long it has made no progress."""
        hang = self._hangs.get(replica)
        if hang is None or stalled_s > hang.stalled_s:
            return
        del self._hangs[replica]
        pool.scheduler.replicas.record_responding(replica, is_responding=True)
        logger.warning(
            "model %s: replica %s responds again, after %.0f s",
            *(pool.model.name, replica.id, self._now() - hang.began_s),
        )

    def forget(self, replica: Replica) -> None:
        """Forget a replica that is gone."""
        self._hangs.pop(replica, None)
