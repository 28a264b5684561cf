"""Meter of one limit: what a project has used of it, at all routers together."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.header_names import RATE_LIMITS
from gateway.identity.project import RateLimit
from gateway.limits.window import Bucket, Window

Scope = tuple[str | None, str | None]
"""Model and API key that a limit is for; None: all."""
UNLIMITED = 1 << 62


@dataclass(slots=True)
class Excess:
    """What was admitted although it was above a limit, since it was counted last."""

    requests: int = 0
    tokens: int = 0

    def take(self) -> tuple[int, int]:
        """Return requests and tokens, and begin again."""
        taken = self.requests, self.tokens
        self.requests = self.tokens = 0
        return taken


class Meter:
    """Use of one project in one scope, and its limits.

    A request is held from its admission until it is sent, and counts for a minute from then on: at
    first with what it is expected to take, later with what it has taken, as its engine found it.
    `project`: its name, for messages and metrics.
    """

    __slots__ = (
        *("concurrent", "excess", "held_requests", "held_tokens", "project", "requests"),
        *("requests_header", "running", "scope", "tokens", "tokens_header", "window"),
    )

    def __init__(self, project: str, scope: Scope) -> None:
        self.project = project
        self.scope = scope
        self.window = Window()
        self.running = 0
        """Requests that have been admitted and have not ended."""
        self.held_requests = self.held_tokens = 0
        """Of the requests that this router has admitted and not sent yet."""
        self.excess = Excess()
        self.requests = self.tokens = self.concurrent = UNLIMITED
        self.requests_header = self.tokens_header = b"", b""
        """Headers with the limits of requests and of tokens."""

    def set_limits(self, limits: Iterable[RateLimit]) -> None:
        """Set the limits; where several say the same, the least counts."""
        limits = list(limits)
        self.requests = _least(limit.requests_per_minute for limit in limits)
        self.tokens = _least(limit.tokens_per_minute for limit in limits)
        self.concurrent = _least(limit.concurrent_requests for limit in limits)
        self.requests_header = RATE_LIMITS[0], b"%d" % self.requests
        self.tokens_header = RATE_LIMITS[3], b"%d" % self.tokens

    @property
    def is_idle(self) -> bool:
        """Whether nothing counts, as of the last time the window was moved on."""
        window = self.window
        return not (self.running or window.requests or window.tokens or self.held_tokens)

    @property
    def used_requests(self) -> int:
        """Requests that count now, as of the last time the window was moved on."""
        return self.window.requests + self.held_requests

    @property
    def used_tokens(self) -> int:
        """Tokens that count now, as of the last time the window was moved on."""
        return self.window.tokens + self.held_tokens

    def has_room_to_send(self, now_s: float, tokens: int, requests: int = 1) -> bool:
        """Whether a request that is held here is within all limits beside what has been sent."""
        window = self.window
        if now_s >= window.expires_s:
            window.expire(now_s)
        return (
            window.requests + requests <= self.requests
            and window.tokens + tokens <= self.tokens
            and self.running - self.held_requests < self.concurrent + 1 - requests
        )

    def add(self, now_s: float, requests: int, tokens: int) -> Bucket:
        """Count requests and tokens, whether there is room for them or not."""
        window = self.window
        bucket = window.add(now_s, requests, tokens)
        if window.requests > self.requests or window.tokens > self.tokens:
            self._count_excess(requests, tokens)
        return bucket

    def _count_excess(self, requests: int, tokens: int) -> None:
        window = self.window
        if window.requests > self.requests:
            self.excess.requests += max(0, min(requests, window.requests - self.requests))
        if window.tokens > self.tokens:
            self.excess.tokens += max(0, min(tokens, window.tokens - self.tokens))


def _least(values: Iterable[int | None]) -> int:
    return min((value for value in values if value is not None), default=UNLIMITED)
