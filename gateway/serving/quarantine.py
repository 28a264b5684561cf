"""Quarantine: requests that may have halted or killed engines, which their clients send again.

Method: a table of the latest such requests of one model, by client and content. While the replica
that a request may have halted has not come back, the same request of the same client is sent to no
other one; a request under which two replicas have died is not sent at all. After `QUARANTINE_S` it
is forgotten, so that a client that was merely unlucky is not refused for long. A client may vary
its requests, which only limits on them can prevent; but most repeat what has failed.

Source: blocking queries of death by their fingerprints, as in "Addressing Cascading Failures" in
Site Reliability Engineering (O'Reilly, 2016). Cost: nothing while the table is empty; otherwise one
hash of a request's body.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import xxhash

from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.routing.fleet import Replica

QUARANTINE_S = 30.0
"""How long a request is remembered."""
MAX_REQUESTS = 256
"""Requests that are remembered for one model."""

Fingerprint = tuple[Tenant, str, bytes]


@dataclass(frozen=True, slots=True)
class QuarantinedRequest:
    """Request that is not sent as usual."""

    until_s: float
    victim: Replica | None
    """Replica that it may have halted; None if two have died under it."""


class Quarantine:
    """Requests of one model that are remembered for what happened under them; `now`: seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._requests: OrderedDict[Fingerprint, QuarantinedRequest] = OrderedDict()

    def add(self, request: InferenceRequest, victim: Replica | None) -> None:
        """Remember a request, and the replica that it may have halted."""
        key = _fingerprint(request)
        self._requests[key] = QuarantinedRequest(self._now() + QUARANTINE_S, victim)
        self._requests.move_to_end(key)
        if len(self._requests) > MAX_REQUESTS:
            self._requests.popitem(last=False)

    def find(self, request: InferenceRequest) -> QuarantinedRequest | None:
        """What is remembered of the same request of the same client, if anything."""
        requests, now_s = self._requests, self._now()
        while requests and next(iter(requests.values())).until_s <= now_s:
            requests.popitem(last=False)
        return requests.get(_fingerprint(request)) if requests else None


def _fingerprint(request: InferenceRequest) -> Fingerprint:
    return request.tenant, request.path, xxhash.xxh3_128_digest(request.body)
