"""What a client asks for beside the answer itself, in headers."""

import math
from collections.abc import Mapping

import msgspec

from gateway.asgi import Headers
from gateway.errors import InvalidRequest
from gateway.request.head import RequestHead
from gateway.request.tenant import ANONYMOUS, Tenant

PRIORITY = b"x-gateway-priority"
RESUME = b"x-gateway-resume"
TIMEOUT = b"x-request-timeout-s"
LONGEST_TIMEOUT_S = 86_400.0
SESSION_LIMIT = 256
"""Bytes of an `x-session-id` that count."""

_BATCH = {b"interactive": False, b"batch": True}
_RESUME = {b"on": True, b"off": False}


class InferenceRequest(msgspec.Struct, frozen=True):
    """One request to the gateway, and how it is to be treated."""

    path: str
    headers: Headers
    body: bytes
    request_id: bytes
    tenant: Tenant = ANONYMOUS
    """Among whom the model's time is shared out."""
    session: bytes = b""
    """What its client calls the session it belongs to."""
    is_stream: bool = False
    is_explained: bool = False
    """Its answer's headers tell why it went where it did."""
    is_batch: bool = False
    """It may wait for all others."""
    is_resumable: bool = True
    """Its stream may be carried on by another replica."""
    is_copy: bool = False
    """Nobody waits for its answer: it starts no engine, and delays no other request."""
    timeout_s: float | None = None
    """How long the client waits for its end."""
    arrived_s: float = 0.0
    """When its head came, by the event loop's clock."""


def sticky_key(request: InferenceRequest, head: RequestHead) -> bytes:
    """What a request shares with those that the same model should answer."""
    return request.session[:SESSION_LIMIT] or head.user or request.request_id


def is_batch(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the request may wait for all others.

    Raises:
        InvalidRequest: its priority is none.
    """
    return PRIORITY in headers and _choice(headers[PRIORITY], _BATCH, PRIORITY)


def is_resumable(headers: Mapping[bytes, bytes]) -> bool:
    """Whether another replica may carry the stream on.

    Raises:
        InvalidRequest: the header says neither yes nor no.
    """
    return RESUME not in headers or _choice(headers[RESUME], _RESUME, RESUME)


def timeout_s(headers: Mapping[bytes, bytes]) -> float | None:
    """How long the client waits; None if it does not say.

    Raises:
        InvalidRequest: that is no number of seconds.
    """
    value = headers.get(TIMEOUT)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT_S:
        raise InvalidRequest(
            f"The header `{TIMEOUT.decode()}` must be a number of seconds above 0 and at most"
            f" {LONGEST_TIMEOUT_S:g}.",
            TIMEOUT.decode(),
        )
    return seconds


def _choice(value: bytes, choices: Mapping[bytes, bool], header: bytes) -> bool:
    chosen = choices.get(value.strip().lower())
    if chosen is None:
        names = " or ".join(f"`{name.decode()}`" for name in choices)
        raise InvalidRequest(f"The header `{header.decode()}` must be {names}.", header.decode())
    return chosen
