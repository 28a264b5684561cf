"""The highest of the values lately seen."""

from collections import deque


class StabilizationWindow:
    """Whole numbers with their times, in seconds; as many as differ are kept."""

    def __init__(self) -> None:
        self._peaks: deque[tuple[float, int]] = deque()
        """Values that no later one has reached."""
        self._since_s: float | None = None

    def reset(self) -> None:
        """Begin anew."""
        self._peaks.clear()
        self._since_s = None

    def add(self, now_s: float, value: int) -> None:
        """The value now."""
        if self._since_s is None:
            self._since_s = now_s
        while self._peaks and self._peaks[-1][1] <= value:
            self._peaks.pop()
        self._peaks.append((now_s, value))

    def peak(self, now_s: float, span_s: float) -> int | None:
        """The highest value of the last `span_s` seconds; None where they were not all seen."""
        if self._since_s is None or now_s - self._since_s < span_s:
            return None
        recent = (value for time_s, value in self._peaks if time_s >= now_s - span_s)
        return next(recent, self._peaks[-1][1])
