"""Rate limiter: limits of requests and tokens a minute and of requests at a time.

Method: every router counts the requests of all routers. Its own count from their admission on;
those of others from the moment that their engine reports them, at most a frame of telemetry later
(`gateway.routing.reservations`). So what R routers admit within a frame may exceed a limit, and
what estimates are wrong by; the excess is counted. No router waits for another, and no clocks are
compared. Cost: O(limits of the project) a request.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from gateway.errors.limits import RateLimited
from gateway.identity.project import Project
from gateway.ledger.view import MinuteUsage
from gateway.limits.cost import counted_tokens
from gateway.limits.hold import Hold, Left
from gateway.limits.meter import UNLIMITED, Meter
from gateway.limits.project_meters import ProjectMeters
from gateway.limits.rate_headers import duration
from gateway.limits.window import MINUTE_S
from gateway.routing.reservations import Settled
from gateway.telemetry.usage import RecentUse, Reservation

CONCURRENCY_RETRY_S = 1.0
"""When to retry a request that there is no room for beside others; nobody knows when one ends."""
RECENT_S = 1.0
"""Seconds that one `RecentUse` is of; its age is that of the first request in it."""
NO_METERS: Sequence[Meter] = ()


class RateLimiter:
    """Rate limits of all projects in one router, over all its models.

    It listens to the reservations of every model. `now` is in seconds, of a clock that never goes
    back. `counts_cached`: whether prompt tokens found in an engine's cache count.
    """

    def __init__(
        self, now: Callable[[], float], counts_cached: Callable[[], bool] = lambda: False
    ) -> None:
        self._now = now
        self.counts_cached = counts_cached
        self._projects: dict[str, ProjectMeters] = {}
        self._holds: dict[int, Hold] = {}
        """By the id of the dispatch, holds of attempts that are not settled."""

    @property
    def meters(self) -> Iterable[Meter]:
        """All meters, moved on to now."""
        now_s = self._now()
        for project in self._projects.values():
            for meter in project.all():
                meter.window.expire(now_s)
                yield meter

    @property
    def unsettled(self) -> int:
        """How many attempts are not settled."""
        return len(self._holds)

    def replace(self, projects: Iterable[Project]) -> None:
        """Follow a change of the projects; what is counted stays."""
        limited = {project.id: project for project in projects if project.rate_limits}
        for id_ in self._projects.keys() - limited.keys():
            del self._projects[id_]
        for id_, project in limited.items():
            if id_ in self._projects:
                self._projects[id_].replace(project)
            else:
                self._projects[id_] = ProjectMeters(project)

    def meters_of(self, project: Project, model: str, key: str) -> Sequence[Meter]:
        """Meters that a request counts against; O(1)."""
        if not project.rate_limits:
            return NO_METERS
        known = self._projects.get(project.id)
        if known is None:
            known = self._projects[project.id] = ProjectMeters(project)
        return known.of(model, key)

    def admit(
        self, meters: Sequence[Meter], model: str, tokens: int, least: int, requests: int = 1
    ) -> Hold:
        """Admit a request that is expected to take so many tokens, at least `least` of them.

        The hold must begin before anything is awaited, unless the request is sent before.
        `requests`: 0 if an engine has had it before, so that all routers have counted it.

        Raises:
            RateLimited: it has to wait, or is above a limit by itself.
        """
        now_s = self._now()
        for meter in meters:
            if tokens > meter.tokens:
                # An answer may be short: what is expected of it keeps no request out for ever.
                tokens = max(least, meter.tokens)
        left = left_beside(meters, now_s, tokens, requests)
        if left.requests < 0 or left.tokens < 0 or left.is_busy:
            raise _first_refusal(meters, now_s, model, tokens, requests)
        return Hold(meters, tokens, requests, left)

    def check_again(self, hold: Hold, model: str) -> None:
        """Check a request that has waited: other routers did not know of it, and have sent theirs.

        Raises:
            RateLimited: what all routers have sent meanwhile leaves no room for it.
        """
        now_s = self._now()
        meters, tokens = hold.unsent
        for meter in meters:
            if not meter.has_room_to_send(now_s, tokens, hold.requests):
                raise refusal(meter, now_s, model, tokens, hold.requests)

    def check(self, meters: Sequence[Meter], model: str) -> None:
        """Refuse a request that will surely have to wait, before it waits for an engine to start.

        Raises:
            RateLimited: there is no room for any request.
        """
        if not meters:
            return
        now_s = self._now()
        left = left_beside(meters, now_s, 0, 1)
        if left.requests < 0 or left.tokens < 0 or left.is_busy:
            raise _first_refusal(meters, now_s, model, 0, 1)

    def record_sending(self, id_: int, hold: Hold, tokens: int) -> None:
        """Count an attempt of this router that is about to be sent, with what it may take.

        `id_`: of its dispatch.
        """
        hold.is_own = True
        self._holds[id_] = hold
        hold.record_sent(self._now(), tokens)

    def record_refused(self, id_: int) -> None:
        """Record that an engine has done nothing for an attempt: refused it, or was not reached."""
        hold = self._holds.get(id_)
        if hold is not None and hold.is_own:
            del self._holds[id_]
            hold.record_refused(self._now())

    def record_ended(self, hold: Hold) -> None:
        """Record that a request of this router has ended."""
        hold.record_ended(self._now())

    def record_reserved(self, reservation: Reservation) -> None:
        """Count a request that runs from now on, unless it is counted already."""
        id_ = reservation.id
        if id_ in self._holds or reservation.is_copy:
            return
        known = self._projects.get(reservation.project)
        if known is None or not (meters := known.of(reservation.model, reservation.key)):
            return
        hold = Hold(meters, reservation.tokens, int(not reservation.is_counted))
        hold.record_sent(self._now(), reservation.tokens)
        self._holds[id_] = hold

    def record_settled(self, settled: Sequence[Settled]) -> None:
        """Correct what was counted to what requests took; where nobody knows that, it stays."""
        holds, now_s, counts_cached = self._holds, self._now(), self.counts_cached()
        for reservation, usage in settled:
            hold = holds.pop(reservation.id, None)
            if hold is None:
                continue
            if not hold.is_own:
                hold.record_ended(now_s)
            if usage is None:
                hold.record_lost(now_s)
            else:
                tokens = counted_tokens(usage, counts_cached=counts_cached)
                hold.record_used(now_s, tokens, is_continuation=usage.origin.is_continuation)

    def record_recent(
        self, uses: Iterable[RecentUse], within_s: float, own: Iterable[Reservation] = ()
    ) -> None:
        """Count what an engine knows of the last minute, as far as this router has not seen it.

        `within_s`: how far back this router has not seen the engine's telemetry. `own`: requests
        that it has sent and counted in that time.
        """
        sums: dict[tuple[int, float], tuple[Sequence[Meter], list[int]]] = {}
        counted = _by_client(own)
        for use in uses:
            known = self._projects.get(use.project)
            if known is None or use.age_s > within_s:
                continue
            tokens = use.uncached_tokens + (use.cached_tokens if self.counts_cached() else 0)
            rest = _without(counted.get((use.project, use.key, use.model)), use.requests, tokens)
            meters = known.of(use.model, use.key)
            _, total = sums.setdefault((id(meters), use.age_s), (meters, [0, 0]))
            total[0] += rest[0]
            total[1] += rest[1]
        now_s = self._now()
        for (_, age_s), (meters, (requests, tokens)) in sums.items():
            for meter in meters:  # engines count by the second
                meter.window.add_earlier(now_s, max(0.0, age_s - RECENT_S), requests, tokens)

    def record_minutes(self, minutes: Iterable[MinuteUsage], time_of_day_s: float) -> None:
        """Count what the ledger knows of the last minute beyond what this router has heard of.

        Engines that have died can no longer tell. Of a minute that is over in part, that part does
        not count; the rest counts as if it had come at the minute's end.
        """
        found: dict[int, tuple[Meter, list[tuple[float, int, int]]]] = {}
        for use in minutes:
            end_s = use.minute_s + MINUTE_S
            share = min(1.0, (end_s - (time_of_day_s - MINUTE_S)) / MINUTE_S)
            known = self._projects.get(use.project)
            if known is None or share <= 0:
                continue
            tokens = counted_tokens(use, counts_cached=self.counts_cached())
            part = (
                max(0.0, time_of_day_s - end_s),
                math.ceil(share * use.requests),
                math.ceil(share * tokens),
            )
            for meter in known.of(use.model, use.key):
                found.setdefault(id(meter), (meter, []))[1].append(part)
        for meter, parts in found.values():
            _fill_up(meter, self._now(), sorted(parts))


def refusal(meter: Meter, now_s: float, model: str, tokens: int, requests: int = 1) -> RateLimited:
    """The error for a request for which a meter has no room; `tokens`: what it asks for."""
    window, wait_s = meter.window, 0.0
    requests_over = meter.used_requests + requests - meter.requests if requests else 0
    tokens_over = meter.used_tokens + tokens - meter.tokens
    if requests_over > 0 and meter.requests:
        wait_s = window.wait_s(now_s, requests_over, 0)
        return _refused(meter, model, "requests", meter.used_requests, 1, wait_s)
    if requests_over > 0 or tokens > meter.tokens:
        kind = "requests" if requests_over > 0 else "tokens"
        return _refused(meter, model, kind, 0, 1 if requests_over > 0 else tokens, None)
    if tokens_over > 0:
        wait_s = window.wait_s(now_s, 0, tokens_over)
        return _refused(meter, model, "tokens", meter.used_tokens, tokens, wait_s)
    return _refused(meter, model, "concurrent", meter.running, 1, CONCURRENCY_RETRY_S)


def left_beside(meters: Sequence[Meter], now_s: float, tokens: int = 0, requests: int = 0) -> Left:
    """What limits leave beside a request, which counts so much; at least one meter."""
    of_requests = of_tokens = meters[0]
    requests_left = tokens_left = UNLIMITED + 1
    is_busy = False
    for meter in meters:
        window = meter.window
        if now_s >= window.expires_s:
            window.expire(now_s)
        left = meter.requests - window.requests - meter.held_requests - requests
        if meter.running >= meter.concurrent:
            is_busy = True
        if left < requests_left:
            requests_left, of_requests = left, meter
        left = meter.tokens - window.tokens - meter.held_tokens - tokens
        if left < tokens_left:
            tokens_left, of_tokens = left, meter
    return Left(requests_left, of_requests, tokens_left, of_tokens, is_busy)


def _first_refusal(
    meters: Sequence[Meter], now_s: float, model: str, tokens: int, requests: int
) -> RateLimited:
    """The error for the first of some meters, at least one of which has no room."""
    for meter in meters:
        left = left_beside((meter,), now_s, tokens, requests)
        if left.requests < 0 or left.tokens < 0 or left.is_busy:
            break
    return refusal(meter, now_s, model, tokens, requests)


def _fill_up(meter: Meter, now_s: float, parts: Sequence[tuple[float, int, int]]) -> None:
    """Add what a meter lacks of these sums, the latest first: ages, requests, tokens."""
    meter.window.expire(now_s)
    requests = sum(part[1] for part in parts) - meter.window.requests
    tokens = sum(part[2] for part in parts) - meter.window.tokens
    for age_s, part_requests, part_tokens in parts:
        added = max(0, min(part_requests, requests)), max(0, min(part_tokens, tokens))
        meter.window.add_earlier(now_s, age_s, *added)
        requests -= added[0]
        tokens -= added[1]


def _by_client(reservations: Iterable[Reservation]) -> dict[tuple[str, str, str], list[int]]:
    """Sum requests and tokens by project, key and model."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for each in reservations:
        total = sums.setdefault((each.project, each.key, each.model), [0, 0])
        total[0] += not each.is_counted
        total[1] += each.tokens
    return sums


def _without(counted: list[int] | None, requests: int, tokens: int) -> tuple[int, int]:
    """Take what is counted already from these, as far as they go."""
    if counted is None:
        return requests, tokens
    both = min(counted[0], requests), min(counted[1], tokens)
    counted[0] -= both[0]
    counted[1] -= both[1]
    return requests - both[0], tokens - both[1]


_LIMITS = {
    "requests": ("requests per min (RPM)", "requests"),
    "tokens": ("tokens per min (TPM)", "tokens"),
    "concurrent": ("concurrent requests", "requests"),
}


def _refused(
    meter: Meter, model: str, kind: str, used: int, requested: int, wait_s: float | None
) -> RateLimited:
    name, type_ = _LIMITS[kind]
    limit: int = getattr(meter, kind)
    where = f"for {model} in project {meter.project} on {name}"
    if wait_s is None:
        return RateLimited(
            f"Request too large {where}: Limit {limit}, Requested {requested}. The request alone is"
            " above the limit, and will never be answered.",
            type_,
        )
    return RateLimited(
        f"Rate limit reached {where}: Limit {limit}, Used {used}, Requested {requested}. Please try"
        f" again in {duration(wait_s).decode()}.",
        type_,
        wait_s,
    )
