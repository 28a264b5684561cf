"""Headers that tell a client how much its project's limits leave it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from gateway.asgi import Headers
from gateway.header_names import ANTHROPIC_RATE_LIMITS, RATE_LIMITS
from gateway.limits.meter import UNLIMITED, Meter


def rate_headers(
    meters: Sequence[Meter], now_s: float, time_of_day: Callable[[], float] | None = None
) -> Headers:
    """Headers for the limits that leave the least; `time_of_day` makes them Anthropic's.

    The meters must have been moved on to `now_s`.
    """
    headers: Headers = []
    tightest = min(meters, key=lambda meter: meter.requests - meter.used_requests)
    if tightest.requests < UNLIMITED:
        reset_s = 60.0 if tightest.held_requests else tightest.window.reset_s(now_s)[0]
        _append(headers, 0, tightest.requests, tightest.used_requests, reset_s, time_of_day)
    tightest = min(meters, key=lambda meter: meter.tokens - meter.used_tokens)
    if tightest.tokens < UNLIMITED:
        reset_s = 60.0 if tightest.held_tokens else tightest.window.reset_s(now_s)[1]
        _append(headers, 3, tightest.tokens, tightest.used_tokens, reset_s, time_of_day)
    return headers


def _append(
    headers: Headers,
    first: int,
    limit: int,
    used: int,
    reset_s: float,
    time_of_day: Callable[[], float] | None,
) -> None:
    left = limit - used if limit > used else 0
    if time_of_day is None:
        names, reset = RATE_LIMITS, duration(reset_s)
    else:
        names = ANTHROPIC_RATE_LIMITS
        at = datetime.fromtimestamp(time_of_day() + reset_s, UTC)
        reset = at.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    headers += (
        (names[first], b"%d" % limit),
        (names[first + 1], b"%d" % left),
        (names[first + 2], reset),
    )


def duration(seconds: float) -> bytes:
    """Write a time as OpenAI does: `1m0s`, `6.25s`, `120ms`."""
    if seconds == 60.0:
        return b"1m0s"
    if seconds < 1:
        return b"%dms" % max(0, round(1000 * seconds))
    minutes, rest = divmod(round(seconds, 3), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".")
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{text}s".encode()
    return f"{minutes}m{text}s".encode() if minutes else f"{text}s".encode()
