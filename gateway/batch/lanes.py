"""Lanes of a batch: parts of its order that run side by side, about one for each replica.

Lines that stand together in the order share a prefix. If all of them came from one place, each
replica would compute each prefix. So the order is cut into lanes, and a lane's lines name one
session, which routers keep at one replica. A lane that is through takes half of what the longest
one has left.

Cost: O(lanes) for a line that begins a lane anew, otherwise O(1).
"""

from collections.abc import Callable


class Lanes:
    """Positions of an order that have not been handed out yet, in lanes.

    `is_done`: whether the line at a position needs no run.
    """

    def __init__(self, positions: int, is_done: Callable[[int], bool]) -> None:
        self._is_done = is_done
        self._rest: list[tuple[int, int]] = [(0, positions)] if positions else []
        """Parts of the order that no lane has, each with its end."""
        self._lanes: dict[int, tuple[int, int]] = {}

    @property
    def left(self) -> int:
        """Positions that are left, those of lines that need no run included."""
        return sum(end - start for start, end in (*self._rest, *self._lanes.values()))

    def next(self, lane: int) -> int | None:
        """Hand out the next position of a lane; None if all have been handed out."""
        while (part := self._lanes.get(lane) or self._take()) is not None:
            start, end = part
            while start < end and self._is_done(start):
                start += 1
            if start + 1 < end:
                self._lanes[lane] = (start + 1, end)
            else:
                self._lanes.pop(lane, None)
            if start < end:
                return start
        return None

    def keep(self, lanes: int) -> None:
        """Give up all lanes but the first so many: others take what they have left."""
        for lane in [each for each in self._lanes if each >= lanes]:
            self._rest.append(self._lanes.pop(lane))

    def _take(self) -> tuple[int, int] | None:
        if self._rest:
            return self._rest.pop()
        lane = max(self._lanes, key=lambda each: _length(self._lanes[each]), default=None)
        if lane is None:
            return None
        start, end = self._lanes[lane]
        middle = (start + end) // 2
        if middle > start:
            self._lanes[lane] = (start, middle)
            return middle, end
        del self._lanes[lane]
        return start, end


def _length(part: tuple[int, int]) -> int:
    return part[1] - part[0]
