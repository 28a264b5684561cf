"""What a client asks for beside the answer itself, in headers."""

import math
from collections.abc import Mapping

import msgspec

from gateway.asgi import Headers
from gateway.errors import InvalidRequest
from gateway.header_names import PRIORITY, RESUME, TIMEOUT
from gateway.request.head import RequestHead
from gateway.request.routes import CHAT
from gateway.request.tenant import ANONYMOUS, Tenant

LONGEST_TIMEOUT_S = 86_400.0
SESSION_LIMIT = 256
"""Bytes of an `x-session-id` that count."""

_BATCH = {b"interactive": False, b"batch": True}
_RESUME = {b"on": True, b"off": False}


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One inference request: parsed once, and held by whatever handles it."""

    head: RequestHead
    """What its body says."""
    path: str = CHAT
    headers: Headers = msgspec.field(default_factory=list)
    """The client's, all of them; with the trace's own where it is traced."""
    body: bytes = b""
    request_id: bytes = b""
    tenant: Tenant = ANONYMOUS
    """Whom its share of the model's time is counted for."""
    session: bytes = b""
    """The client's `x-session-id`, up to `SESSION_LIMIT` bytes of it; empty without one."""
    is_explained: bool = False
    """The response's headers carry the routing decision."""
    is_batch: bool = False
    """It may wait for all interactive requests."""
    is_resumable: bool = True
    """Its stream may be resumed on another replica."""
    is_copy: bool = False
    """Shadow traffic: nobody waits for its answer, so it starts no engine and delays nobody."""
    timeout_s: float | None = None
    """How long the client waits for the end of the answer."""
    arrived_s: float = 0.0
    """When its head arrived, by the event loop's clock."""

    @property
    def sticky_key(self) -> bytes:
        """What it shares with those requests that the same model of a split should answer."""
        return self.session or self.head.user or self.request_id


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
