"""Headers that tell a client how much its project's limits leave it."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from gateway.asgi import Headers
from gateway.header_names import ANTHROPIC_RATE_LIMITS, RATE_LIMITS
from gateway.limits.hold import Left
from gateway.limits.meter import UNLIMITED, Meter
from gateway.limits.window import MINUTE_S

FULL_RESET = (RATE_LIMITS[2], b"1m0s"), (RATE_LIMITS[5], b"1m0s")
"""Headers of the reset where a request has just been admitted."""


def rate_headers(
    meters: Sequence[Meter], now_s: float, time_of_day: Callable[[], float] | None = None
) -> Headers:
    """Headers for the limits that leave the least; `time_of_day` makes them Anthropic's.

    The meters must have been moved on to `now_s`.
    """
    requests, tokens = _tightest(meters)
    if time_of_day is not None:
        return _for_anthropic(requests, tokens, now_s, time_of_day())
    headers: Headers = []
    if (limit := requests.requests) < UNLIMITED:
        left = limit - requests.window.requests - requests.held_requests
        is_full = requests.held_requests > 0
        headers = [
            requests.requests_header,
            (RATE_LIMITS[1], b"%d" % left if left > 0 else b"0"),
            FULL_RESET[0] if is_full else _reset(2, requests.window.reset_s(now_s)[0]),
        ]
    if (limit := tokens.tokens) < UNLIMITED:
        left = limit - tokens.window.tokens - tokens.held_tokens
        is_full = tokens.held_tokens > 0
        headers += (
            tokens.tokens_header,
            (RATE_LIMITS[4], b"%d" % left if left > 0 else b"0"),
            FULL_RESET[1] if is_full else _reset(5, tokens.window.reset_s(now_s)[1]),
        )
    return headers


def admitted_headers(left: Left, time_of_day: Callable[[], float] | None = None) -> Headers:
    """Headers for a request that has just been admitted; see `rate_headers`."""
    requests, tokens = left.of_requests, left.of_tokens
    headers: Headers = []
    if time_of_day is not None:
        reset_s = time_of_day() + MINUTE_S
        if (limit := requests.requests) < UNLIMITED:
            headers += _three(0, limit, limit - left.requests, reset_s)
        if (limit := tokens.tokens) < UNLIMITED:
            headers += _three(3, limit, limit - left.tokens, reset_s)
        return headers
    if requests.requests < UNLIMITED:
        remaining = RATE_LIMITS[1], b"%d" % left.requests
        headers = [requests.requests_header, remaining, FULL_RESET[0]]
    if tokens.tokens < UNLIMITED:
        headers += (tokens.tokens_header, (RATE_LIMITS[4], b"%d" % left.tokens), FULL_RESET[1])
    return headers


def _tightest(meters: Sequence[Meter]) -> tuple[Meter, Meter]:
    """The meters that leave the fewest requests, and the fewest tokens."""
    requests = tokens = meters[0]
    if len(meters) == 1:
        return requests, tokens
    least_requests = least_tokens = math.inf
    for meter in meters:
        window = meter.window
        left = meter.requests - window.requests - meter.held_requests
        if left < least_requests:
            requests, least_requests = meter, left
        left = meter.tokens - window.tokens - meter.held_tokens
        if left < least_tokens:
            tokens, least_tokens = meter, left
    return requests, tokens


def _reset(index: int, reset_s: float) -> tuple[bytes, bytes]:
    return RATE_LIMITS[index], duration(reset_s)


def _for_anthropic(requests: Meter, tokens: Meter, now_s: float, unix_s: float) -> Headers:
    headers: Headers = []
    if (limit := requests.requests) < UNLIMITED:
        reset_s = MINUTE_S if requests.held_requests else requests.window.reset_s(now_s)[0]
        headers += _three(0, limit, requests.used_requests, unix_s + reset_s)
    if (limit := tokens.tokens) < UNLIMITED:
        reset_s = MINUTE_S if tokens.held_tokens else tokens.window.reset_s(now_s)[1]
        headers += _three(3, limit, tokens.used_tokens, unix_s + reset_s)
    return headers


def _three(first: int, limit: int, used: int, reset_s: float) -> Headers:
    """Headers with a limit, what it leaves, and when it is whole again, in Unix time."""
    names = ANTHROPIC_RATE_LIMITS[first : first + 3]
    reset = datetime.fromtimestamp(reset_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = b"%d" % limit, b"%d" % max(0, limit - used), reset.encode()
    return list(zip(names, values, strict=True))


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
