"""Decides when a change of the desired number of replicas is followed.

Method: scale up once the need has exceeded the target for a short while, to its mean over that
while. Scale down once the need has been lower, by a margin, for a long while, to its highest value
over that while. A load that varies around a boundary therefore stays on its upper side.

- While replicas are starting, work queues up that they will do: only the need without that backlog
  (`DesiredReplicas.without_backlog`) asks for more of them.
- A replica is kept for at least twice the time its start took, and for a minute, unless the model
  is idle. For a minute after a replica was removed, only an urgent need brings it back.
- While a running replica does not report its load, no replica is removed.
- The last replica is removed on its own, one decision after the others.
"""

import math
from collections import deque
from dataclasses import dataclass

from gateway.autoscaling.desired_replicas import DesiredReplicas

SCALE_UP_DELAY_STARTS = 0.1
"""How long a need must last before it is followed, as a share of the time a start takes."""
MIN_SCALE_UP_DELAY_S, MAX_SCALE_UP_DELAY_S = 2.0, 10.0
SCALE_DOWN_MARGIN = 1.15
"""Capacity that must remain after a scale-down, as a multiple of the need."""
KEEP_STARTS = 2.0
"""How long a replica is kept, as a multiple of the time a start takes."""
DIRECTION_CHANGE_S = 60.0
"""Least time between two changes of direction under a steady load."""
SETTLE_S = 10.0
"""Time from the last replica's arrival until the backlog from its start has left all statistics."""
URGENT = 1.4
"""Urgent need, as a multiple of the target: at a utilization of 0.7, engines are full."""
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSnapshot:
    """State of one model's replicas when a decision is made."""

    now_s: float
    desired: DesiredReplicas
    is_complete: bool
    """Whether all running replicas have reported their load."""
    running: int
    """Replicas that are ready to work."""
    target: int
    """Replicas that the last decision asked for."""
    start_s: float
    """Seconds that a start takes."""
    min_replicas: int = 0
    max_replicas: int = 1_000_000


class StabilizationWindow:
    """Maximum of the recent values of an integer; times are in seconds."""

    def __init__(self) -> None:
        self._peaks: deque[tuple[float, int]] = deque()
        """Values that no later one has reached, with their times."""
        self._since_s: float | None = None

    def reset(self) -> None:
        """Forget all values."""
        self._peaks.clear()
        self._since_s = None

    def add(self, now_s: float, value: int) -> None:
        """Record the present value."""
        if self._since_s is None:
            self._since_s = now_s
        while self._peaks and self._peaks[-1][1] <= value:
            self._peaks.pop()
        self._peaks.append((now_s, value))

    def peak(self, now_s: float, span_s: float) -> int | None:
        """Highest value of the last `span_s` seconds; None if the window is shorter than that."""
        if self._since_s is None or now_s - self._since_s < span_s:
            return None
        recent = (value for time_s, value in self._peaks if time_s >= now_s - span_s)
        return next(recent, self._peaks[-1][1])


class Stabilizer:
    """Chooses the target number of replicas for one model."""

    def __init__(self, scale_down_delay_s: float) -> None:
        self._scale_down_delay_s = scale_down_delay_s
        self._needs: deque[tuple[float, float]] = deque()
        """Needs that may ask for more replicas, with their times."""
        self._sufficient = StabilizationWindow()
        """Replicas that would have been enough."""
        self._target: int | None = None
        """The last decision."""
        self._last_scale_down_s = -math.inf
        self._last_short_s = -math.inf
        """When fewer replicas than the target were last running."""

    def decide(self, snapshot: ScalingSnapshot) -> int:
        """Return the new target number of replicas."""
        if self._target is not None and snapshot.target > self._target:
            self._reset_windows()  # something else, such as Serve at zero, has asked for more
        self._record(snapshot)
        decided = max(self._scale_up_target(snapshot), self._scale_down_target(snapshot))
        target = max(snapshot.min_replicas, min(snapshot.max_replicas, decided))
        if not target and snapshot.target > 1:
            target = 1  # Serve removes the last replica only on its own
        if target > snapshot.target:
            self._reset_windows()
        elif target < snapshot.target:
            self._last_scale_down_s = snapshot.now_s
        self._target = target
        return target

    def _reset_windows(self) -> None:
        self._needs.clear()
        self._sufficient.reset()

    def _record(self, snapshot: ScalingSnapshot) -> None:
        now_s, desired = snapshot.now_s, snapshot.desired
        if snapshot.running < snapshot.target:
            self._last_short_s = now_s
        is_settled = now_s - self._last_short_s >= SETTLE_S
        self._needs.append((now_s, desired.total if is_settled else desired.without_backlog))
        sufficient = _rounded_up(SCALE_DOWN_MARGIN * desired.total)
        self._sufficient.add(now_s, sufficient if snapshot.is_complete else snapshot.target)

    def _scale_up_target(self, snapshot: ScalingSnapshot) -> int:
        """Mean of a need that has lasted long enough and exceeds the target; otherwise 0."""
        now_s, target = snapshot.now_s, snapshot.target
        delay_s = SCALE_UP_DELAY_STARTS * snapshot.start_s
        delay_s = min(max(delay_s, MIN_SCALE_UP_DELAY_S), MAX_SCALE_UP_DELAY_S)
        while len(self._needs) > 1 and self._needs[1][0] <= now_s - delay_s:
            self._needs.popleft()
        is_brief = now_s - self._needs[0][0] < delay_s
        needs = [need for _, need in self._needs]
        has_just_shrunk = now_s - self._last_scale_down_s < DIRECTION_CHANGE_S
        threshold = target * (URGENT if has_just_shrunk else 1.0)
        if is_brief or min(needs) <= threshold + ROUNDING:
            return 0
        return _rounded_up(sum(needs) / len(needs))

    def _scale_down_target(self, snapshot: ScalingSnapshot) -> int:
        """Replicas that have long been enough, if fewer than the target; otherwise the target."""
        now_s, target = snapshot.now_s, snapshot.target
        span_s = max(self._scale_down_delay_s, KEEP_STARTS * snapshot.start_s)
        if self._sufficient.peak(now_s, span_s) == 0:
            return 0
        sufficient = self._sufficient.peak(now_s, max(span_s, DIRECTION_CHANGE_S))
        return target if sufficient is None else min(target, sufficient)


def _rounded_up(replicas: float) -> int:
    return math.ceil(replicas - ROUNDING)
