"""Measures how much work reaches an engine and what it costs; autoscaling is based on it.

Method: prompts computed at the same time share the engine's steps, so the seconds of one prompt do
not tell what its tokens cost. Prefills that overlap are therefore merged into one busy period, and
the engine's seconds per token are the slope of a line through the busy periods (`RobustLine`).
Arriving prompt tokens are counted with exponential decay, which gives a rate per second.
O(1) per request.
"""

import math
from collections.abc import Callable

from gateway.decaying_mean import DecayingMean
from gateway.regression import RobustLine
from gateway.routing.cost_model import PRIOR_PREFILL_S, PRIOR_STEP_S

MEMORY_S = 15.0
"""Time constant of the decay: longer than a burst of a second or two."""
BUSY_PERIOD_S = 1.0
"""Busy periods longer than this are split, so that a loaded engine is measured, too."""
MEAN_DECAY = 0.95
"""Weight of the earlier service times at each new one."""


class WorkMeter:
    """Work of one engine; `now` is the engine's clock, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tokens_per_s, self._decayed_until_s = 0.0, now()
        self._has_measured = False
        self._line = RobustLine(PRIOR_STEP_S, PRIOR_PREFILL_S)
        self._busy_tokens, self._busy_from_s, self._busy_until_s = 0, 0.0, -math.inf
        self._service_s = DecayingMean(MEAN_DECAY)

    @property
    def has_measured(self) -> bool:
        """Whether the engine has computed prompts, so that its speed is known."""
        return self._has_measured

    @property
    def prefill_s(self) -> float:
        """Seconds that the engine needs for one prompt token that is not cached."""
        return self._line.slope

    @property
    def service_s(self) -> float:
        """Mean seconds that a request occupies its slot; 0 until one has finished."""
        return self._service_s.value

    @property
    def prefill_s_per_s(self) -> float:
        """Seconds of prefill that arrive per second; an engine can do less than one."""
        return self._decayed_rate() * self.prefill_s

    def record_arrival(self, new_tokens: int) -> None:
        """Count an arriving prompt with `new_tokens` tokens to compute."""
        self._tokens_per_s = self._decayed_rate() + new_tokens / MEMORY_S
        self._decayed_until_s = self._now()

    def record_prefill(self, new_tokens: int, from_s: float, until_s: float) -> None:
        """Count `new_tokens` prompt tokens computed in that time, perhaps beside other prompts."""
        if new_tokens <= 0:
            return
        last_s = self._busy_until_s
        is_long = last_s - self._busy_from_s > BUSY_PERIOD_S
        if from_s >= last_s or (is_long and until_s > last_s):
            self._end_busy_period()
            self._busy_tokens, self._busy_from_s = 0, max(from_s, last_s)
        self._busy_tokens += new_tokens
        self._busy_until_s = max(until_s, last_s)

    def record_service_time(self, service_s: float) -> None:
        """Count the seconds that a finished request occupied its slot."""
        self._service_s.observe(service_s)

    def _end_busy_period(self) -> None:
        seconds = self._busy_until_s - self._busy_from_s
        if self._busy_tokens and seconds > 0:
            self._has_measured = True
            self._line.observe(self._busy_tokens, seconds)

    def _decayed_rate(self) -> float:
        return self._tokens_per_s * math.exp((self._decayed_until_s - self._now()) / MEMORY_S)
