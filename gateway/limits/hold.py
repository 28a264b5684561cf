"""Hold: what one request has set aside of its project's limits, until it is known what it took.

A request that a client of this router waits for has one hold, however often it is sent; its
attempts are settled one by one. A request of another router has a hold for each attempt that its
engine reports.
"""

from collections.abc import Sequence

import msgspec

from gateway.limits.meter import Meter
from gateway.limits.window import Bucket


class Left(msgspec.Struct, frozen=True):
    """Requests and tokens that limits leave beside one request, and the meters that leave least."""

    requests: int
    of_requests: Meter
    tokens: int
    of_tokens: Meter
    is_busy: bool
    """As many requests run as may at a time."""


class Hold:
    """What one request sets aside of each limit, from `begin` on, or else from when it is sent.

    `tokens`: what it is expected to take. `requests`: 1, or 0 for a further attempt, which does not
    count again. `left`: what remains beside it.
    """

    __slots__ = (
        *("_buckets", "_has_begun", "_is_ended", "_is_lost", "_meters", "_open", "_part", "_rest"),
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
        self._open = 0
        """Attempts that are not settled."""
        self._part = self._rest = 0
        """Tokens of the longest attempt that began at the beginning, and of those that went on."""
        self._has_begun = self._is_ended = self._is_lost = False
        self.is_own = False
        """It is this router's, which tells when its client has the answer."""

    def begin(self) -> None:
        """Set it aside before it is sent: it has to wait."""
        if self._has_begun or self._buckets is not None:
            return
        self._has_begun = True
        for meter in self._meters:
            meter.running += 1
            meter.held_requests += self.requests
            meter.held_tokens += self.tokens

    @property
    def unsent(self) -> tuple[Sequence[Meter], int]:
        """Meters and tokens of a request that has not been sent; no meters once it has been."""
        return (self._meters, self.tokens) if self._buckets is None else ((), 0)

    def record_sent(self, now_s: float, tokens: int) -> None:
        """Record an attempt, which is now expected to take so many tokens."""
        self._open += 1
        if self._buckets is None:
            if self._has_begun:
                self._release()
            self.tokens, requests = tokens, self.requests
            buckets: list[Bucket] = []
            for meter in self._meters:
                meter.running += 1
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
        if self._buckets is None:  # it has cost nothing, and does not count
            if self._has_begun:
                self._release()
            return
        for meter in self._meters:
            meter.running -= 1
        if not self._open:
            self._settle(now_s)

    def _release(self) -> None:
        for meter in self._meters:
            meter.running -= 1
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
                meter.window.adjust(bucket, 0, more)
