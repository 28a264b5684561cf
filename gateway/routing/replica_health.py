"""Health of a replica, which decides whether other replicas are preferred to it."""

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.routing.outlier_detector import OutlierDetector


class HealthState(StrEnum):
    """State of a replica; the values are labels of the metric `gateway_replicas`."""

    READY = "ready"
    NO_TELEMETRY = "no_telemetry"
    """Usable, although its telemetry does not arrive."""
    EJECTED = "ejected"
    """It failed too often."""
    BACKOFF = "backoff"
    """It could not be reached just now."""
    NOT_RESPONDING = "not_responding"
    """It is silent, or makes no progress: it hangs, and is about to be replaced."""
    DRAINING = "draining"
    """It rejects new requests."""


# Looking up a member of an enum takes far longer than a global name.
READY, NO_TELEMETRY = HealthState.READY, HealthState.NO_TELEMETRY
EJECTED, BACKOFF, DRAINING = HealthState.EJECTED, HealthState.BACKOFF, HealthState.DRAINING
NOT_RESPONDING = HealthState.NOT_RESPONDING

HEALTHY = (READY, NO_TELEMETRY)
"""States of replicas to which no others are preferred."""
USABLE_TIERS = (HEALTHY, (EJECTED,), (BACKOFF,), (NOT_RESPONDING,))
"""States of replicas that accept requests, the preferred ones first."""


@dataclass(slots=True, eq=False)
class ReplicaHealth:
    """Health of one replica: telemetry, draining, ejection and backoff; times are seconds."""

    has_telemetry: bool = False
    """Whether its telemetry arrives."""
    is_draining: bool = False
    is_responding: bool = True
    """Whether it makes itself heard, and makes progress."""
    outlier_detector: OutlierDetector = field(default_factory=OutlierDetector)
    _backoff_until_s: float = 0.0

    def state(self, now_s: float) -> HealthState:
        """Return the state; where several apply, the one that counts most against the replica."""
        if self.is_draining:
            return DRAINING
        if not self.is_responding:
            return NOT_RESPONDING
        if self._backoff_until_s > now_s:
            return BACKOFF
        if self.outlier_detector.excluded_until_s > now_s:
            return EJECTED
        return READY if self.has_telemetry else NO_TELEMETRY

    def is_in_backoff(self, now_s: float) -> bool:
        """Whether it could not be reached just now, whatever else is wrong with it."""
        return self._backoff_until_s > now_s

    def back_off(self, until_s: float) -> None:
        """Prefer other replicas until then, because it could not be reached or broke off."""
        self._backoff_until_s = max(self._backoff_until_s, until_s)

    def clear_backoff(self) -> None:
        """End the backoff: it has been reached."""
        self._backoff_until_s = 0.0
