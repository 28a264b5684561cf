"""How long a start goes on that nobody waits for any more.

Of a model that may sleep, nothing runs and one replica is wanted: it is starting, finds no room, or
fails again and again. While a request waits for it, Serve keeps it going and does not ask; so what
is seen here of those who wait is the time between two looks. Whoever has given up may come back: a
start goes on for a while, and until it should be done, as far as is known what one takes.

To give up is also what ends a start that fails: at zero, Serve forgets how often it did.
"""

import math

LEAST_S, MOST_S = 30.0, 60.0
"""Of `scale_down_delay_s`, how much a start is given that nobody waits for; and replicas that run,
until a controller that has restarted has found them again."""
GAP_S = 5.0
"""Between looks there is less while nobody waits."""


class WakeTimeout:
    """With one model's starts."""

    def __init__(self, scale_down_delay_s: float) -> None:
        self._patience_s = min(max(scale_down_delay_s, LEAST_S), MOST_S)
        self._looked_s = self._began_s = self._alone_s = -math.inf
        """When it was looked last, when something ran or nothing was wanted, when somebody waited.
        """

    def is_over(self, now_s: float, start_s: float, *, is_starting: bool, is_waited: bool) -> bool:
        """Whether to give up, at this look; `start_s`: what a start takes, 0 where unknown."""
        has_waited = is_waited or now_s - self._looked_s > GAP_S
        self._looked_s = now_s
        if not is_starting:
            self._began_s = now_s
        if has_waited or not is_starting:
            self._alone_s = now_s
        is_late = now_s - self._began_s >= start_s
        return is_late and now_s - self._alone_s >= self._patience_s
