"""Lines of a running batch that are not under way: those never tried, and those to try again."""

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass

from gateway.batch.lanes import Lanes
from gateway.batch.line_plan import LinePlace, LinePlan
from gateway.batch.line_set import LineSet


@dataclass(slots=True)
class LineTry:
    """A line that is, or is to be, under way."""

    place: LinePlace
    lane: int
    tries: int = 0
    """How often it has been tried."""
    faults: int = 0
    """How often that failed by the gateway's fault."""
    is_guaranteed: bool = False
    sent_s: float = 0.0


class LineFeed:
    """Hands out the lines of a plan that are not `done`, lane by lane."""

    def __init__(self, plan: LinePlan, done: LineSet) -> None:
        self._plan = plan
        self._lanes = Lanes(len(plan), lambda position: plan.place(position).number in done)
        self._lane_count = 1
        self._under_way: Counter[int] = Counter()
        """Lines under way of each lane."""
        self._retries: list[tuple[float, int, LineTry]] = []
        self._numbers = itertools.count()

    @property
    def retry_s(self) -> float | None:
        """When the next line is to be tried again; None if none is."""
        return self._retries[0][0] if self._retries else None

    def use_lanes(self, count: int) -> None:
        """Run in so many lanes from now on."""
        if count != self._lane_count:
            self._lane_count = max(1, count)
            self._lanes.keep(self._lane_count)

    def next(self, now_s: float) -> LineTry | None:
        """The next line to send, which is under way from now on; None if there is none now."""
        if self._retries and self._retries[0][0] <= now_s:
            found = heapq.heappop(self._retries)[2]
        elif (fresh := self._next_fresh()) is not None:
            found = fresh
        else:
            return None
        self._under_way[found.lane] += 1
        return found

    def end(self, ended: LineTry) -> None:
        """Note that a line is no longer under way."""
        self._under_way[ended.lane] -= 1

    def try_again(self, failed: LineTry, at_s: float) -> None:
        """Have a line sent again at that time."""
        heapq.heappush(self._retries, (at_s, next(self._numbers), failed))

    def _next_fresh(self) -> LineTry | None:
        lane = min(range(self._lane_count), key=lambda each: self._under_way[each])
        position = self._lanes.next(lane)
        return None if position is None else LineTry(self._plan.place(position), lane)
