"""Headers that tell a client how much its project's limits leave it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from gateway.asgi import Headers
from gateway.header_names import ANTHROPIC_RATE_LIMITS, RATE_LIMITS
from gateway.limits.meter import UNLIMITED, Meter
from gateway.limits.window import MINUTE_S


def rate_headers(
    meters: Sequence[Meter], now_s: float, time_of_day: Callable[[], float] | None = None
) -> Headers:
    """Headers for the limits that leave the least; `time_of_day` makes them Anthropic's.

    The meters must have been moved on to `now_s`.
    """
    requests = tokens = meters[0]
    if len(meters) > 1:
        requests = min(meters, key=lambda meter: meter.requests - meter.used_requests)
        tokens = min(meters, key=lambda meter: meter.tokens - meter.used_tokens)
    names = RATE_LIMITS if time_of_day is None else ANTHROPIC_RATE_LIMITS
    headers: Headers = []
    if (limit := requests.requests) < UNLIMITED:
        left = limit - requests.window.requests - requests.held_requests
        reset_s = MINUTE_S if requests.held_requests else requests.window.reset_s(now_s)[0]
        headers += (
            (names[0], b"%d" % limit),
            (names[1], b"%d" % max(0, left)),
            (names[2], _reset(reset_s, time_of_day)),
        )
    if (limit := tokens.tokens) < UNLIMITED:
        left = limit - tokens.window.tokens - tokens.held_tokens
        reset_s = MINUTE_S if tokens.held_tokens else tokens.window.reset_s(now_s)[1]
        headers += (
            (names[3], b"%d" % limit),
            (names[4], b"%d" % max(0, left)),
            (names[5], _reset(reset_s, time_of_day)),
        )
    return headers


def _reset(reset_s: float, time_of_day: Callable[[], float] | None) -> bytes:
    if time_of_day is None:
        return b"1m0s" if reset_s == MINUTE_S else duration(reset_s)
    at = datetime.fromtimestamp(time_of_day() + reset_s, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ").encode()


def duration(seconds: float) -> bytes:
    """Write a time as OpenAI does: `1m0s`, `6.25s`, `120ms`."""
    if seconds < 1:
        return b"%dms" % max(0, round(1000 * seconds))
    minutes, rest = divmod(round(seconds, 3), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".")
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{text}s".encode()
    return f"{minutes}m{text}s".encode() if minutes else f"{text}s".encode()
