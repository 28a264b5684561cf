"""Replicas that fail too often, and for how long others are preferred to them.

Method: Envoy's outlier detection with a probe. A replica is taken out after `IN_A_ROW` failures in
a row, or when more than half of its last `WINDOW` requests failed: for `FIRST_S` seconds, and twice
as long each time it happens again, up to `LAST_S`. Then a single request at a time is let through;
one that succeeds takes the replica back, one that fails takes it out again. Never more than half of
a model's replicas are out: where all fail, the fault is not theirs. O(1) a request; of replicas
that never fail nothing is kept.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

IN_A_ROW = 5
WINDOW = 20
FIRST_S = 5.0
LAST_S = 300.0
PROBE_S = 10.0
"""How long one probe keeps others away, should nothing be heard of it."""
MEMORY_S = 600.0
"""Without failures for so long, a replica's earlier ejections are forgotten."""


@dataclass(slots=True)
class _Record:
    """What is remembered of a replica that has failed."""

    in_a_row: int = 0
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Whether each of its last requests succeeded."""
    ejections: int = 0
    out_until_s: float = 0.0
    is_on_probation: bool = False
    """It was out, and has not succeeded since."""
    probed_until_s: float = 0.0
    failed_s: float = 0.0

    @property
    def is_failing(self) -> bool:
        many = len(self.recent) == WINDOW and 2 * self.recent.count(False) > WINDOW
        return self.is_on_probation or self.in_a_row >= IN_A_ROW or many


class Outliers:
    """One model's. `now` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._records: dict[str, _Record] = {}

    @property
    def out(self) -> frozenset[str]:
        """The replicas that get no requests now."""
        return frozenset(replica for replica in self._records if self.is_out(replica))

    def is_out(self, replica: str) -> bool:
        """Whether others are to be preferred to it."""
        record = self._records.get(replica)
        if record is None:
            return False
        now_s = self._now()
        return record.out_until_s > now_s or (
            record.is_on_probation and record.probed_until_s > now_s
        )

    def begin(self, replica: str) -> None:
        """A request is sent to it: the probe, if it is on probation."""
        record = self._records.get(replica)
        if record is not None and record.is_on_probation:
            record.probed_until_s = self._now() + PROBE_S

    def succeed(self, replica: str) -> None:
        """It has answered."""
        record = self._records.get(replica)
        if record is None:
            return
        now_s = self._now()
        if record.out_until_s > now_s:
            return  # an answer from before it was taken out
        record.in_a_row = 0
        record.recent.append(True)
        if record.is_on_probation:
            record.is_on_probation = False
            record.recent.clear()
        if now_s - record.failed_s > MEMORY_S:
            del self._records[replica]

    def fail(self, replica: str, among: int) -> bool:
        """It has failed, one of `among` replicas; whether that takes it out."""
        now_s = self._now()
        record = self._records.setdefault(replica, _Record())
        if record.out_until_s > now_s:
            return False  # one more of those that were under way when it was taken out
        if now_s - record.failed_s > MEMORY_S:
            record.ejections = 0
        record.failed_s = now_s
        record.in_a_row += 1
        record.recent.append(False)
        if not record.is_failing or 2 * (len(self.out - {replica}) + 1) > among:
            return False
        record.out_until_s = now_s + min(LAST_S, FIRST_S * 2**record.ejections)
        record.ejections += 1
        record.in_a_row = 0
        record.is_on_probation = True
        record.probed_until_s = 0.0
        return True

    def forget(self, replica: str) -> None:
        """It has gone."""
        self._records.pop(replica, None)
