"""Outlier detection: ejects a replica that fails too often for a while.

Method: Envoy's outlier detection with a probe. A replica is ejected after `CONSECUTIVE_FAILURES`,
or when more than half of its last `WINDOW` requests failed, unless it answers as many other clients
as it fails (`ClientVotes`): for `FIRST_EJECTION_S` seconds, and twice as long each further time, up
to `MAX_EJECTION_S`. Then it gets a single request at a time: a success takes it back, a failure
ejects it again. At most half of a model's replicas are ejected at a time: where all fail, the fault
is not theirs.

What counts as a failure is decided elsewhere (`gateway.serving.failure_reporter`): only what
another replica did for the same request. A request that fails everywhere counts against none, and
one that is refused (4xx), cancelled or cut by its deadline says nothing.

Source: Envoy's outlier detection (consecutive failures and success rate); the "query of death" of
"Addressing Cascading Failures" in Site Reliability Engineering (O'Reilly, 2016). Cost: O(1) a
request.
"""

from collections import deque
from dataclasses import dataclass, field

from gateway.request.tenant import ANONYMOUS, Tenant
from gateway.routing.client_votes import ClientVotes

CONSECUTIVE_FAILURES = 5
WINDOW = 20
FIRST_EJECTION_S = 5.0
MAX_EJECTION_S = 300.0
PROBE_S = 10.0
"""How long a probe keeps other requests away if its result is never recorded."""
MEMORY_S = 600.0
"""How long without failures until earlier ejections are forgotten."""


def may_eject(ejected: int, replicas: int) -> bool:
    """Whether one more of a model's replicas may be ejected."""
    return 2 * (ejected + 1) <= replicas


@dataclass(slots=True, eq=False)
class OutlierDetector:
    """Recent results of one replica, and whether they eject it; times are seconds."""

    excluded_until_s: float = 0.0
    """Until when others are preferred: the replica is ejected, or its probe is under way."""
    _consecutive: int = 0
    _results: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Whether each of the last requests succeeded; empty until one fails."""
    _ejections: int = 0
    _ejected_until_s: float = 0.0
    _is_on_probation: bool = False
    """Whether the replica was ejected and has not succeeded since."""
    _failed_s: float | None = None
    """Time of the last failure; None if there is none to remember."""
    _votes: ClientVotes = field(default_factory=ClientVotes)

    def record_sent(self, now_s: float) -> None:
        """Record a request sent to the replica: the probe, if it is on probation."""
        if self._is_on_probation:
            self.excluded_until_s = max(self._ejected_until_s, now_s + PROBE_S)

    def release_probe(self) -> None:
        """Record that a request has ended and says nothing of the replica: another may probe it."""
        if self._is_on_probation:
            self.excluded_until_s = self._ejected_until_s

    @property
    def is_suspect(self) -> bool:
        """Whether the last result that counts was a failure."""
        return self._consecutive > 0 or self._is_on_probation

    def record_success(self, now_s: float, client: Tenant = ANONYMOUS) -> None:
        """Record an answer of the replica to a client."""
        self._votes.record(client, now_s, is_success=True)
        if self._failed_s is None or self._ejected_until_s > now_s:
            return  # nothing to recover from, or an answer from before the ejection
        self._consecutive = 0
        self._results.append(True)
        if self._is_on_probation:
            self._is_on_probation = False
            self.excluded_until_s = 0.0
            self._results.clear()
        if now_s - self._failed_s > MEMORY_S:
            self._forget()

    def record_failure(self, now_s: float, client: Tenant = ANONYMOUS, *, may_eject: bool) -> bool:
        """Record a failure at a client's request; return whether it ejects the replica."""
        self._votes.record(client, now_s, is_success=False)
        if self._ejected_until_s > now_s:
            return False  # a request that was under way when the replica was ejected
        if self._failed_s is not None and now_s - self._failed_s > MEMORY_S:
            self._ejections = 0
        self._failed_s = now_s
        self._consecutive += 1
        self._results.append(False)
        if not (self._is_failing and may_eject and self._votes.condemn(now_s)):
            return False
        ejection_s = min(MAX_EJECTION_S, FIRST_EJECTION_S * 2**self._ejections)
        self.excluded_until_s = self._ejected_until_s = now_s + ejection_s
        self._ejections += 1
        self._consecutive = 0
        self._is_on_probation = True
        return True

    @property
    def _is_failing(self) -> bool:
        is_mostly_failing = len(self._results) == WINDOW and 2 * self._results.count(False) > WINDOW
        has_row = self._consecutive >= CONSECUTIVE_FAILURES
        return self._is_on_probation or has_row or is_mostly_failing

    def _forget(self) -> None:
        self._results.clear()
        self._ejections = 0
        self._failed_s = None
