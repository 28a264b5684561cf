"""Hold: what one request has set aside of its project's limits, until it is known what it took.

A request that a client of this router waits for has one hold, however often it is sent; its
attempts are settled one by one. A request of another router has a hold for each attempt that its
engine reports.
"""

from collections.abc import Sequence

from gateway.limits.meter import UNLIMITED, Meter
from gateway.limits.window import Bucket


class Left:
    """Requests and tokens that limits leave beside one request, and the meters that leave least."""

    __slots__ = ("of_requests", "of_tokens", "requests", "tokens")

    def __init__(self, meter: Meter) -> None:
        self.requests = self.tokens = UNLIMITED + 1
        self.of_requests = self.of_tokens = meter


class Hold:
    """What one request has set aside of each limit.

    `tokens`: what it is expected to take. `requests`: 1, or 0 for a further attempt, which does not
    count again. `left`: what remained when it was set aside.
    """

    __slots__ = (
        *("_buckets", "_is_ended", "_is_lost", "_meters", "_open", "_part", "_rest"),
        *("is_own", "left", "requests", "tokens"),
    )

    def __init__(
        self, meters: Sequence[Meter], tokens: int, requests: int = 1, left: Left | None = None
    ) -> None:
        self.left = left
        self.tokens = tokens
        self.requests = requests
        self._meters = meters
        self._buckets: Sequence[Bucket] | None = None
        """Where it counts in each window; None until it has been sent."""
        for meter in meters:
            meter.running += 1
            meter.held_requests += requests
            meter.held_tokens += tokens
        self._open = 0
        """Attempts that are not settled."""
        self._part = self._rest = 0
        """Tokens of the longest attempt that began at the beginning, and of those that went on."""
        self._is_ended = self._is_lost = False
        self.is_own = False
        """It is this router's, which tells when its client has the answer."""

    @property
    def unsent(self) -> tuple[Sequence[Meter], int]:
        """Meters and tokens of a request that has not been sent; no meters once it has been."""
        return (self._meters, self.tokens) if self._buckets is None else ((), 0)

    def record_sent(self, now_s: float, tokens: int) -> None:
        """Record an attempt, which is now expected to take so many tokens."""
        self._open += 1
        if self._buckets is None:
            requests, held_tokens = self.requests, self.tokens
            self.tokens = tokens
            buckets: list[Bucket] = []
            for meter in self._meters:
                meter.held_requests -= requests
                meter.held_tokens -= held_tokens
                buckets.append(meter.add(now_s, requests, tokens))
            self._buckets = buckets

    def record_used(self, now_s: float, tokens: int, *, is_continuation: bool) -> None:
        """Record what an attempt has taken, as its engine found it."""
        if is_continuation:
            self._rest += tokens
        elif tokens > self._part:
            self._part = tokens
        self._open -= 1
        if self._is_ended and not self._open:
            self._settle(now_s)

    def record_lost(self, now_s: float) -> None:
        """Record that nobody knows what an attempt has taken: at least what was expected."""
        self._is_lost = True
        self._settle_one(now_s)

    def record_refused(self, now_s: float) -> None:
        """Record that an engine has done nothing for an attempt: it was refused, or not reached."""
        self._settle_one(now_s)

    def record_ended(self, now_s: float) -> None:
        """Record that the request has ended for its client: nothing further is sent."""
        if self._is_ended:
            return
        self._is_ended = True
        for meter in self._meters:
            meter.running -= 1
        if self._buckets is None:  # it has cost nothing, and does not count
            self._release()
        elif not self._open:
            self._settle(now_s)

    def _release(self) -> None:
        for meter in self._meters:
            meter.held_requests -= self.requests
            meter.held_tokens -= self.tokens

    def _settle_one(self, now_s: float) -> None:
        self._open -= 1
        if self._is_ended and not self._open:
            self._settle(now_s)

    def _settle(self, now_s: float) -> None:
        """Correct what was expected to what was taken.

        What is taken back leaves the moment that it was counted at, if that is in the window still;
        what is added counts from now on.
        """
        used = self._part + self._rest
        more = max(0, used - self.tokens) if self._is_lost else used - self.tokens
        if more > 0:
            for meter in self._meters:
                meter.add(now_s, 0, more)
        elif more < 0:
            for meter, bucket in zip(self._meters, self._buckets or (), strict=True):
                if bucket.is_live:
                    bucket.tokens += more
                    meter.window.tokens += more
