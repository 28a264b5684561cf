"""Summary of one request that has ended: a line of the request log, without any prompt."""

import datetime as dt

import msgspec

from gateway.telemetry.update import Finished

SHOWN_MODEL = 256
"""Characters of the name that a client asked for."""


class RequestSummary(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one request ended; times are seconds, None where there was none of the kind."""

    time: dt.datetime
    """When it ended."""
    request_id: str
    router: str
    """Id of the router that answered it."""
    client: str
    """Its client's address; of IPv6, the network."""
    project: str = ""
    """Id of its client's project; empty without authentication."""
    key: str = ""
    """Id of its client's key."""
    route: str
    priority: str
    """`interactive` or `batch`."""
    requested_model: str = ""
    """Name that its client asked for; empty if the body was not read so far."""
    model: str = ""
    """Model that answered, or was tried last."""
    adapter: str = ""
    """Adapter that answered; empty if the model itself did."""
    replica: str = ""
    """Replica that answered, or was tried last."""
    attempts: int = 0
    replicas: tuple[str, ...] = ()
    """Replica of each attempt."""
    is_stream: bool = False
    status: int
    """Status that its client got; 0 if it got none."""
    outcome: str
    """As the metric `gateway_requests_total` has it."""
    error: str = ""
    """Code of the error that its client got from the gateway."""
    prompt_tokens: int | None = None
    """Tokens as the engine of the last attempt reports them; None if it has not in time."""
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    queue_s: float
    """Time in queues, and until an engine had started."""
    ttft_s: float | None = None
    """Time to the first event of a stream."""
    e2e_s: float
    """Time from its arrival to its end."""
    request_bytes: int = 0
    """Size of its body, decoded."""
    response_bytes: int = 0
    """Size of the body that its client was sent."""

    def with_tokens(self, finished: Finished) -> "RequestSummary":
        """The summary with the tokens that its engine has reported."""
        return msgspec.structs.replace(
            self,
            prompt_tokens=finished.prompt_tokens,
            cached_tokens=finished.cached_tokens,
            completion_tokens=finished.completion_tokens,
        )
