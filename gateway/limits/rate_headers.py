"""Headers that tell a client how much its project's limits leave it."""

from collections.abc import Callable
from datetime import UTC, datetime

from gateway.asgi import Headers
from gateway.header_names import ANTHROPIC_RATE_LIMITS, RATE_LIMITS
from gateway.limits.hold import Left
from gateway.limits.meter import UNLIMITED, Meter
from gateway.limits.window import MINUTE_S

FULL_RESET = (RATE_LIMITS[2], b"1m0s"), (RATE_LIMITS[5], b"1m0s")
"""Headers of the reset where a request has just been admitted."""


def rate_headers(
    left: Left, now_s: float | None = None, time_of_day: Callable[[], float] | None = None
) -> Headers:
    """Headers for what limits leave; `time_of_day` makes them Anthropic's.

    `now_s`: None for a request that counts from now on, so that limits are whole in a minute.
    """
    if time_of_day is not None:
        return _for_anthropic(left, now_s, time_of_day())
    requests, tokens = left.of_requests, left.of_tokens
    headers: Headers = []
    if requests.requests < UNLIMITED:
        headers = [
            requests.requests_header,
            (RATE_LIMITS[1], b"%d" % left.requests if left.requests > 0 else b"0"),
            FULL_RESET[0] if now_s is None else _reset(2, _requests_reset_s(requests, now_s)),
        ]
    if tokens.tokens < UNLIMITED:
        headers += (
            tokens.tokens_header,
            (RATE_LIMITS[4], b"%d" % left.tokens if left.tokens > 0 else b"0"),
            FULL_RESET[1] if now_s is None else _reset(5, _tokens_reset_s(tokens, now_s)),
        )
    return headers


def _requests_reset_s(meter: Meter, now_s: float) -> float:
    """Seconds until a meter has no requests, if no more come."""
    return MINUTE_S if meter.held_requests else meter.window.reset_s(now_s)[0]


def _tokens_reset_s(meter: Meter, now_s: float) -> float:
    """Seconds until a meter has no tokens, if no more come."""
    return MINUTE_S if meter.held_tokens else meter.window.reset_s(now_s)[1]


def _reset(index: int, reset_s: float) -> tuple[bytes, bytes]:
    return RATE_LIMITS[index], duration(reset_s)


def _for_anthropic(left: Left, now_s: float | None, unix_s: float) -> Headers:
    requests, tokens = left.of_requests, left.of_tokens
    headers: Headers = []
    if (limit := requests.requests) < UNLIMITED:
        reset_s = MINUTE_S if now_s is None else _requests_reset_s(requests, now_s)
        headers += _three(0, limit, left.requests, unix_s + reset_s)
    if (limit := tokens.tokens) < UNLIMITED:
        reset_s = MINUTE_S if now_s is None else _tokens_reset_s(tokens, now_s)
        headers += _three(3, limit, left.tokens, unix_s + reset_s)
    return headers


def _three(first: int, limit: int, left: int, reset_s: float) -> Headers:
    """Headers with a limit, what it leaves, and when it is whole again, in Unix time."""
    names = ANTHROPIC_RATE_LIMITS[first : first + 3]
    reset = datetime.fromtimestamp(reset_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = b"%d" % limit, b"%d" % max(0, left), reset.encode()
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
