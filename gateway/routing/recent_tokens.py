"""Tokens of the requests that a replica has finished lately, by the reports of its engine.

Sums for each second of a window of 15 s: O(1) a request.
"""

from collections import deque
from dataclasses import dataclass

from gateway.telemetry.update import Finished

WINDOW_S = 15


@dataclass(slots=True)
class FinishedTokens:
    """Sums over requests."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens found in the KV cache."""
    completion_tokens: int = 0


class RecentTokens:
    """Tokens of the last `WINDOW_S` seconds; `now_s` is in seconds, from any beginning."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, FinishedTokens]] = deque()
        """Sums of the seconds that had any, in order."""

    def record(self, finished: Finished, now_s: float) -> None:
        """Count a request that has just finished."""
        second = int(now_s)
        if not self._seconds or self._seconds[-1][0] != second:
            self._forget(second)
            self._seconds.append((second, FinishedTokens()))
        sums = self._seconds[-1][1]
        sums.requests += 1
        sums.prompt_tokens += finished.prompt_tokens
        sums.cached_tokens += finished.cached_tokens
        sums.completion_tokens += finished.completion_tokens

    def sums(self, now_s: float) -> FinishedTokens:
        """Sums of the window that ends now."""
        self._forget(int(now_s))
        found = [sums for _, sums in self._seconds]
        return FinishedTokens(
            sum(each.requests for each in found),
            sum(each.prompt_tokens for each in found),
            sum(each.cached_tokens for each in found),
            sum(each.completion_tokens for each in found),
        )

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - WINDOW_S:
            self._seconds.popleft()
