"""Lines of a running batch that are not under way: those never tried, and those to try again."""

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass

from gateway.batch.lanes import Lanes
from gateway.batch.line_plan import LinePlace, LinePlan
from gateway.batch.line_set import LineSet

LARGE_BYTES = 2048
"""Bytes of a prompt, without what it shares with the line before, that take a while to compute."""


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
        self._large: Counter[int] = Counter()
        """Lines with a large prompt that are under way, of each lane."""
        self._held: dict[int, LineTry] = {}
        """The next line of a lane, while it waits for such a line."""

    @property
    def retry_s(self) -> float | None:
        """When the next line is to be tried again; None if none is."""
        return self._retries[0][0] if self._retries else None

    def use_lanes(self, count: int) -> None:
        """Run in so many lanes from now on."""
        if count != self._lane_count:
            self._lane_count = max(1, count)
            self._lanes.keep(self._lane_count)
            for lane in [each for each in self._held if each >= self._lane_count]:
                self.try_again(self._held.pop(lane), 0.0)

    def next(self, now_s: float) -> LineTry | None:
        """The next line to send, which is under way from now on; None if there is none now."""
        if self._retries and self._retries[0][0] <= now_s:
            found = heapq.heappop(self._retries)[2]
        elif (fresh := self._next_fresh()) is not None:
            found = fresh
        else:
            return None
        self._under_way[found.lane] += 1
        self._large[found.lane] += _is_large(found)
        return found

    def end(self, ended: LineTry) -> None:
        """Note that a line is no longer under way."""
        self._under_way[ended.lane] -= 1
        self._large[ended.lane] -= _is_large(ended)

    def try_again(self, failed: LineTry, at_s: float) -> None:
        """Have a line sent again at that time."""
        heapq.heappush(self._retries, (at_s, next(self._numbers), failed))

    def _next_fresh(self) -> LineTry | None:
        """The next line of the lane with the fewest under way.

        A line waits while one with a large prompt is under way in its lane, unless it has a large
        one itself: what it shares with it is not in the cache yet.
        """
        for lane in sorted(range(self._lane_count), key=lambda each: self._under_way[each]):
            line = self._held.pop(lane, None) or self._take(lane)
            if line is None:
                continue
            if not self._large[lane] or _is_large(line):
                return line
            self._held[lane] = line
        return None

    def _take(self, lane: int) -> LineTry | None:
        position = self._lanes.next(lane)
        return None if position is None else LineTry(self._plan.place(position), lane)


def _is_large(line: LineTry) -> bool:
    return line.place.prompt_bytes >= LARGE_BYTES
