"""Detects replicas whose load reports are stale: Serve keeps a hung replica's last report for ever.

Method: a report counts as new when its timestamp differs from the one before. Timestamps come from
the replicas' clocks and are never compared with the local clock, so skew does not matter.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

R = TypeVar("R", bound=Hashable)

STALE_AFTER_S = 10.0
"""Replicas report every second: one without a new report for longer is hung."""


class Staleness(Generic[R]):
    """Tracks when each replica of one model last sent a new report."""

    def __init__(self) -> None:
        self._last_new: dict[R, tuple[float, float]] = {}
        """The last report's timestamp by the replica's clock, and when it was first seen."""

    def update(self, now_s: float, reported_s: Mapping[R, float]) -> set[R]:
        """Record each replica's latest report, by its timestamp, and return the fresh replicas.

        The first report of a replica is new.
        """
        last = self._last_new
        self._last_new = {
            replica: last[replica]
            if replica in last and last[replica][0] == time_s
            else (time_s, now_s)
            for replica, time_s in reported_s.items()
        }
        oldest_s = now_s - STALE_AFTER_S
        return {replica for replica, (_, new_s) in self._last_new.items() if new_s >= oldest_s}
