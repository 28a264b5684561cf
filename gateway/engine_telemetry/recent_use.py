"""Use of an engine in the last minute, for routers that have just come: limits are by the minute.

Method: what has ended is summed by the second in which it arrived, and by project, key and model.
"""

from collections import OrderedDict
from collections.abc import Callable

from gateway.telemetry.usage import RecentUse, UsageRecord

WINDOW_S = 60

_Key = tuple[str, str, str]


class RecentUses:
    """Use by requests that have ended; `now`: the time of day, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seconds: OrderedDict[int, dict[_Key, list[int]]] = OrderedDict()

    def add(self, record: UsageRecord) -> None:
        """Count a request that has ended; shadow traffic counts against no limit."""
        origin = record.origin
        self._discard_old()
        if origin.is_copy or record.arrived_s < self._now() - WINDOW_S:
            return
        second = self._seconds.setdefault(int(record.arrived_s), {})
        sums = second.setdefault(
            (origin.project, origin.key, record.adapter or record.model), [0, 0, 0]
        )
        sums[0] += not origin.is_counted
        sums[1] += record.prompt_tokens - record.cached_tokens + record.completion_tokens
        sums[2] += record.cached_tokens

    def snapshot(self) -> list[RecentUse]:
        """The use of the last minute."""
        self._discard_old()
        now_s = self._now()
        return [
            RecentUse(
                project=project,
                key=key,
                model=model,
                age_s=max(0.0, now_s - second),
                requests=sums[0],
                uncached_tokens=sums[1],
                cached_tokens=sums[2],
            )
            for second, uses in self._seconds.items()
            if second > now_s - WINDOW_S
            for (project, key, model), sums in uses.items()
        ]

    def _discard_old(self) -> None:
        """Forget seconds that are over, as far as they came first: others are left out above."""
        oldest_s = self._now() - WINDOW_S
        while self._seconds and next(iter(self._seconds)) < oldest_s:
            self._seconds.popitem(last=False)
