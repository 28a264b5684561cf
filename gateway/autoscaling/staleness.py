"""Which replicas still tell their load: what one that hangs told last is kept for ever."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

R = TypeVar("R", bound=Hashable)

MEMORY_S = 10.0
"""Replicas tell it every second: who has told nothing new for longer hangs."""


class Staleness(Generic[R]):
    """One model's; it compares what replicas' clocks say only with what they said before."""

    def __init__(self) -> None:
        self._heard: dict[R, tuple[float, float]] = {}

    def hear(self, now_s: float, told_s: Mapping[R, float]) -> set[R]:
        """Those that have told something new lately; `told_s`: each one's last word, by its clock.

        Of one that is seen for the first time, all is new.
        """
        last = self._heard
        self._heard = {
            replica: last[replica]
            if replica in last and last[replica][0] == time_s
            else (time_s, now_s)
            for replica, time_s in told_s.items()
        }
        oldest_s = now_s - MEMORY_S
        return {replica for replica, (_, heard_s) in self._heard.items() if heard_s >= oldest_s}
