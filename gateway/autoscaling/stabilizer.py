"""When a need for more or fewer replicas is followed.

Method: up, once the need has been higher than what there is for a short while, to its mean of that
while; down, once it has been lower for a long while and by a margin, to the most that it was. So a
load that varies about a boundary stays on its upper side.

- While replicas that were asked for are still to come, work piles up that they will do: only a need
  that lasts (`DesiredReplicas.lasting`) asks for more then.
- A replica is kept for at least twice as long as its start took, and for a minute, unless there is
  nothing to do at all; for a minute after one was taken away, only an urgent need brings it back.
- Where a replica has not told its load, nothing is taken away.
- The last one goes by itself, at the look after the others.
"""

import math
from collections import deque
from dataclasses import dataclass

from gateway.autoscaling.desired_replicas import DesiredReplicas
from gateway.autoscaling.stabilization_window import StabilizationWindow

RISE_SHARE = 0.1
"""Of the time that a start takes, how long a need must last to be worth one."""
LEAST_RISE_S, MOST_RISE_S = 2.0, 10.0
MARGIN = 1.15
"""How much more than the present load those must be able to do that are left."""
STARTS = 2.0
"""A replica is kept for as long as so many starts take."""
STEADY_S = 60.0
"""Between one change of direction and the next, at least, under a steady load."""
SETTLING_S = 10.0
"""From when the last one has come until what had piled up by then is out of all figures."""
URGENT = 1.4
"""Of what there is, a need that must not wait: where 0.7 is to be used, all is."""
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingInput:
    """What there is to decide from."""

    now_s: float
    need: DesiredReplicas
    is_known: bool
    """Whether all replicas that run have told their load."""
    running: int
    """Replicas that can work."""
    target: int
    """Replicas there are to be, as decided before."""
    start_s: float
    """What a start takes."""
    least: int = 0
    most: int = 1_000_000


class Stabilizer:
    """Decides for one model."""

    def __init__(self, scale_down_delay_s: float) -> None:
        self._delay_s = scale_down_delay_s
        self._needs: deque[tuple[float, float]] = deque()
        """Those that may ask for more, with their times."""
        self._enough = StabilizationWindow()
        """Replicas that would have been enough."""
        self._target: int | None = None
        self._lowered_s = self._short_s = -math.inf
        """When replicas were last taken away, and when there were last fewer than there are to be.
        """

    def decide(self, situation: ScalingInput) -> int:
        """How many replicas there are to be from now on."""
        if self._target is not None and situation.target > self._target:
            self._begin()  # somebody else, such as Serve at zero, has asked for more
        self._note(situation)
        decided = max(self._raised(situation), self._lowered(situation))
        target = max(situation.least, min(situation.most, decided))
        if not target and situation.target > 1:
            target = 1  # Serve takes the last one away only by itself
        if target > situation.target:
            self._begin()
        elif target < situation.target:
            self._lowered_s = situation.now_s
        self._target = target
        return target

    def _begin(self) -> None:
        self._needs.clear()
        self._enough.reset()

    def _note(self, situation: ScalingInput) -> None:
        now_s, need = situation.now_s, situation.need
        if situation.running < situation.target:
            self._short_s = now_s
        is_settled = now_s - self._short_s >= SETTLING_S
        self._needs.append((now_s, need.total if is_settled else need.lasting))
        enough = _rounded(MARGIN * need.total) if situation.is_known else situation.target
        self._enough.add(now_s, enough)

    def _raised(self, situation: ScalingInput) -> int:
        """What the need has come to, where that is more than there is; otherwise 0."""
        now_s, target = situation.now_s, situation.target
        rise_s = min(max(RISE_SHARE * situation.start_s, LEAST_RISE_S), MOST_RISE_S)
        while len(self._needs) > 1 and self._needs[1][0] <= now_s - rise_s:
            self._needs.popleft()
        is_short = now_s - self._needs[0][0] < rise_s
        needs = [need for _, need in self._needs]
        worth = target * (URGENT if now_s - self._lowered_s < STEADY_S else 1.0)
        if is_short or min(needs) <= worth + ROUNDING:
            return 0
        return _rounded(sum(needs) / len(needs))

    def _lowered(self, situation: ScalingInput) -> int:
        """What has been enough for long, where that is less than there is; otherwise the target."""
        now_s, target = situation.now_s, situation.target
        span_s = max(self._delay_s, STARTS * situation.start_s)
        if self._enough.peak(now_s, span_s) == 0:
            return 0
        enough = self._enough.peak(now_s, max(span_s, STEADY_S))
        return target if enough is None else min(target, enough)


def _rounded(replicas: float) -> int:
    return math.ceil(replicas - ROUNDING)
