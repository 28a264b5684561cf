"""How much work an engine gets, and what it takes it: what the number of its replicas rests on.

Method: prompts that are read at the same time share the engine's steps, so that the seconds of each
say nothing of what its tokens cost. Prefills that overlap are therefore taken as one stretch of
work, and the engine's seconds per token are the slope of a line over the stretches (`RobustLine`).
Prompt tokens that arrive are counted with an exponential memory, which is what arrives in a second.
O(1) a request.
"""

import math
from collections.abc import Callable

from gateway.routing.cost_model import PRIOR_PREFILL_S, PRIOR_STEP_S, RobustLine

MEMORY_S = 15.0
"""How long an arrival counts: a burst of a second or two is no rate."""
STRETCH_S = 1.0
"""A stretch that goes on for longer is told in parts."""
MEAN_MEMORY = 0.95


class WorkMeter:
    """One engine's; `now` is its clock, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tokens_per_s, self._counted_s = 0.0, now()
        self._line = RobustLine(PRIOR_STEP_S, PRIOR_PREFILL_S)
        self._stretch_tokens, self._stretch_began_s, self._stretch_ended_s = 0, 0.0, -math.inf
        self._service_s, self._services = 0.0, 0.0

    @property
    def prefill_s(self) -> float:
        """Seconds that the engine needs for a prompt token that is not cached."""
        return self._line.slope

    @property
    def service_s(self) -> float:
        """Seconds that a request has its slot, on average; 0: none has ended yet."""
        return self._service_s / self._services if self._services else 0.0

    @property
    def arriving(self) -> float:
        """Seconds of prefill that arrive in a second; an engine can do less than one."""
        return self._decayed() * self.prefill_s

    def arrive(self, new_tokens: int) -> None:
        """A prompt has come, of which so many tokens have to be computed."""
        self._tokens_per_s = self._decayed() + new_tokens / MEMORY_S
        self._counted_s = self._now()

    def prefill(self, new_tokens: int, began_s: float, ended_s: float) -> None:
        """So many tokens of a prompt were computed in that time, perhaps beside others."""
        if new_tokens <= 0:
            return
        last_s = self._stretch_ended_s
        is_long = last_s - self._stretch_began_s > STRETCH_S
        if began_s >= last_s or (is_long and ended_s > last_s):
            self._tell()
            self._stretch_tokens, self._stretch_began_s = 0, max(began_s, last_s)
        self._stretch_tokens += new_tokens
        self._stretch_ended_s = max(ended_s, last_s)

    def serve(self, service_s: float) -> None:
        """A request has had its slot for so long."""
        self._service_s = MEAN_MEMORY * self._service_s + service_s
        self._services = MEAN_MEMORY * self._services + 1

    def _tell(self) -> None:
        seconds = self._stretch_ended_s - self._stretch_began_s
        if self._stretch_tokens and seconds > 0:
            self._line.observe(self._stretch_tokens, seconds)

    def _decayed(self) -> float:
        return self._tokens_per_s * math.exp((self._counted_s - self._now()) / MEMORY_S)
