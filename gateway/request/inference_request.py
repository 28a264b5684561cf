"""Inference request: its body and headers, parsed once."""

import math
from collections.abc import Mapping

import msgspec

from gateway.asgi import Headers
from gateway.errors.request import InvalidRequest
from gateway.header_names import EXPLAIN, PRIORITY, RESUME, SESSION, TIMEOUT
from gateway.identity.client import ANONYMOUS_IDENTITY, ClientIdentity
from gateway.identity.project import Tier
from gateway.request.encoding import without_mark
from gateway.request.head import RequestHead
from gateway.request.raw_fields import ABSENT
from gateway.request.routes import CHAT, parse_head
from gateway.request.service_tier import BATCH_TIER, DEFAULT_TIER, asked_tier, served_tier
from gateway.request.tenant import ANONYMOUS, Tenant

LONGEST_TIMEOUT_S = 86_400.0
SESSION_LIMIT = 256
"""Bytes of an `x-session-id` that count."""

_BATCH = {b"interactive": False, b"batch": True}
TIER_WEIGHTS: Mapping[Tier, float] = {"priority": 2.0}
"""Factors on a project's weight."""
MIN_WEIGHT = 1e-6
"""Weight of projects that have none: they wait for all others."""
_RESUME = {b"on": True, b"off": False}


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One inference request: parsed once, and held by whatever handles it."""

    head: RequestHead
    """Fields of its body."""
    path: str = CHAT
    headers: Headers = msgspec.field(default_factory=list)
    """All of the client's; where the request is traced, with the gateway's own trace context."""
    body: bytes = b""
    request_id: bytes = b""
    engine_id: bytes = b""
    """Id that engines get in place of `request_id`, if it is not that."""
    tenant: Tenant = ANONYMOUS
    """Tenant to whose share of the model's time it counts."""
    identity: ClientIdentity = ANONYMOUS_IDENTITY
    """Verified identity of its client."""
    session: bytes = b""
    """The client's `x-session-id`, at most `SESSION_LIMIT` bytes of it, after its project; empty
    without one."""
    is_explained: bool = False
    """The response's headers carry the routing decision."""
    is_operator: bool = False
    """It comes with the gateway's admin key."""
    tier: Tier = DEFAULT_TIER
    """Tier that it is served in."""
    is_resumable: bool = True
    """Its stream may be resumed on another replica."""
    is_copy: bool = False
    """Shadow traffic: no client waits for its answer, so it starts no engine and delays no one."""
    timeout_s: float | None = None
    """How long the client waits for the end of the answer."""
    arrived_s: float = 0.0
    """When its head arrived, by the event loop's clock."""

    @property
    def project(self) -> str:
        """Id of its project; empty without authentication."""
        return self.identity.project.id

    @property
    def weight(self) -> float:
        """Share of a busy model's time that its project has for it, relative to others."""
        weight = self.identity.project.weight * TIER_WEIGHTS.get(self.tier, 1.0)
        return max(MIN_WEIGHT, weight)

    @property
    def shows_routing(self) -> bool:
        """Whether the response's headers may say where the request went.

        Projects must not learn where others' load and cached prompts are.
        """
        return self.is_operator or self.identity.is_open

    @property
    def is_batch(self) -> bool:
        """Whether it may wait for all interactive requests."""
        return self.tier == BATCH_TIER

    @property
    def asks_for_tier(self) -> bool:
        """Whether its body says in which tier it is to be served."""
        return self.head.fields.service_tier is not ABSENT

    @property
    def log_name(self) -> str:
        """The request as log lines name it: its id, and the project that has sent it."""
        name = self.request_id.decode()
        return name if self.identity.is_open else f"{name} of project {self.project}"

    @property
    def sticky_key(self) -> bytes:
        """Key of the requests that the same model of a split should answer."""
        user = self.head.user
        return self.session or (user and _of_project(self.identity, user)) or self.request_id


def parse_request(  # noqa: PLR0913 - one for each source of a request
    path: str,
    body: bytes,
    fields: Mapping[bytes, bytes],
    *,
    headers: Headers,
    request_id: bytes,
    tenant: Tenant = ANONYMOUS,
    is_operator: bool = False,
    identity: ClientIdentity = ANONYMOUS_IDENTITY,
    is_batch: bool = False,
    arrived_s: float = 0.0,
) -> InferenceRequest:
    """Parse a request to `path`, one of `gateway.request.routes`.

    `fields`: the client's headers by name. `headers`: those that engines may get. `is_operator`:
    they have the gateway's admin key. `is_batch`: they ask for batch priority, which is known
    before the body (`parse_is_batch`).

    Raises:
        InvalidRequest: its body or one of its headers is wrong.
    """
    body = without_mark(body)
    head = parse_head(path, body, fields.get(b"content-type", b""))
    asked = asked_tier(head.fields.service_tier)
    return InferenceRequest(
        head=head,
        path=path,
        headers=headers,
        body=body,
        request_id=request_id,
        tenant=tenant,
        identity=identity,
        session=_of_project(identity, fields.get(SESSION, b"")[:SESSION_LIMIT]),
        is_explained=fields.get(EXPLAIN) == b"1",
        is_operator=is_operator,
        tier=served_tier(BATCH_TIER if is_batch else asked, identity.project.tiers),
        is_resumable=parse_is_resumable(fields),
        timeout_s=parse_timeout_s(fields),
        arrived_s=arrived_s,
    )


def asks_for_batch(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the request asks for batch priority; False if its priority is invalid."""
    return PRIORITY in headers and _BATCH.get(headers[PRIORITY].strip().lower(), False)


def parse_is_batch(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the request may wait for all interactive ones.

    Raises:
        InvalidRequest: there is no such priority.
    """
    return PRIORITY in headers and _choice(headers[PRIORITY], _BATCH, PRIORITY)


def parse_is_resumable(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the stream may be resumed on another replica.

    Raises:
        InvalidRequest: the header is neither `on` nor `off`.
    """
    return RESUME not in headers or _choice(headers[RESUME], _RESUME, RESUME)


def parse_timeout_s(headers: Mapping[bytes, bytes]) -> float | None:
    """Seconds that the client waits for the answer; None if it does not say.

    Raises:
        InvalidRequest: the header is no number of seconds.
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


def _of_project(identity: ClientIdentity, name: bytes) -> bytes:
    """A name that a client has chosen, so that another project's is not the same."""
    return (
        name if identity.is_open or not name else b"%b\0%b" % (identity.project.id.encode(), name)
    )


def _choice(value: bytes, choices: Mapping[bytes, bool], header: bytes) -> bool:
    chosen = choices.get(value.strip().lower())
    if chosen is None:
        names = " or ".join(f"`{name.decode()}`" for name in choices)
        raise InvalidRequest(f"The header `{header.decode()}` must be {names}.", header.decode())
    return chosen
