"""Quarantine: requests that may have halted or killed engines, which their clients send again.

Method: a table of the latest such requests of one model, by client and content.

- While the replica hangs that a request may have halted, or is gone and not replaced, the same
  request of the same client is sent to no other one. It may go to that replica once it is back.
- A request under which two replicas have died or halted, or one has halted twice, is not sent.
- `QUARANTINE_S` after the last of these replicas is back or replaced, the request is free again. A
  replica that is not replaced in the time of an engine's start counts as replaced: the model may
  have been scaled down, or its node lost. A request that does it again waits four times as long.
- A request that is answered, wherever it was under way, is free at once. One that was answered in
  the last `ANSWERED_S` is not suspected when a replica falls silent under it for the first time in
  `MEMORY_S`: what halts engines is not answered, and what is repeated all day is easily caught.

So a poison has one victim, and its next one only when the model is whole again, more and more
rarely. A client whose request came to an engine just before that was unplugged is refused only if
it repeats that very request, and the model has never answered it. A client may vary its requests,
which only limits on them can prevent; but most repeat what has failed.

Source: blocking queries of death by their fingerprints, as in "Addressing Cascading Failures" in
Site Reliability Engineering (O'Reilly, 2016). Cost: one hash of a body of up to `MAX_KEPT_BYTES`
for each answer; while the table is not empty, one more for each request of that size, and for a
larger one of the same size as a request in the table.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

import xxhash

from gateway.request.inference_request import InferenceRequest
from gateway.request.tenant import Tenant
from gateway.routing.fleet import ServedModel
from gateway.routing.replica_set import ReplicaSet

QUARANTINE_S = 30.0
"""How long a request is kept from others once the replicas that it has taken are back."""
STRIKE_FACTOR = 4.0
"""How many times longer it is each further time."""
MEMORY_S = 3600.0
"""How long a request is remembered at most."""
MAX_REQUESTS = 256
"""Requests that are remembered for one model."""
ANSWERED_S = 600.0
"""How long it is remembered that a request has been answered."""
MAX_ANSWERED = 2048
"""Answered requests that are remembered for one model."""
MAX_KEPT_BYTES = 16 * 1024
"""Size up to which answered requests are remembered."""

Fingerprint = tuple[Tenant, str, bytes]


@dataclass(slots=True, eq=False)
class QuarantinedRequest:
    """Request that is not sent as usual; times are seconds."""

    size: int
    added_s: float
    victims: frozenset[str]
    """Ids of the replicas that it has halted or killed."""
    others: frozenset[str]
    """Ids of the replicas that were there beside them."""
    is_banned: bool
    """Whether it is not sent at all."""
    strikes: int = 1
    """How often it has been added."""
    lost_s: float | None = None
    """Since when one of the victims is gone."""
    free_s: float | None = None
    """When it is free; None while not all victims are back or replaced."""

    @property
    def period_s(self) -> float:
        """How long it is kept from others once the victims are back."""
        return min(MEMORY_S, QUARANTINE_S * STRIKE_FACTOR ** (self.strikes - 1))


class Quarantine:
    """Requests of one model that are remembered for what happened under them; `now`: seconds."""

    def __init__(self, model: ServedModel, replicas: ReplicaSet, now: Callable[[], float]) -> None:
        self._model = model
        self._replicas = replicas
        self._now = now
        self._requests: OrderedDict[Fingerprint, QuarantinedRequest] = OrderedDict()
        """The latest last."""
        self._answered: OrderedDict[Fingerprint, float] = OrderedDict()
        """When each request was answered last; the latest last."""
        replicas.subscribe(self._follow)

    def add(
        self, request: InferenceRequest, victims: Collection[str], *, is_banned: bool = False
    ) -> None:
        """Remember a request, and the ids of the replicas that it may have halted or killed."""
        key, now_s = _fingerprint(request), self._now()
        former = self._find(key, now_s)
        taken = frozenset(victims)
        is_same = former is not None and _is_same(former, taken, now_s)
        if is_same and not is_banned:
            return  # it was under way there several times
        if former is not None and former.free_s is None:
            taken |= former.victims
            is_banned = is_banned or former.is_banned or len(taken) > 1
        others = frozenset(state.replica.id for state in self._replicas.all()) - taken
        entry = QuarantinedRequest(len(request.body), now_s, taken, others, is_banned)
        if former is not None:
            entry.strikes = former.strikes + (not is_same)
        elif not is_banned and self._was_answered(key, now_s):
            entry.free_s = now_s
        self._requests[key] = entry
        self._requests.move_to_end(key)
        if len(self._requests) > MAX_REQUESTS:
            self._requests.popitem(last=False)

    def find(self, request: InferenceRequest) -> QuarantinedRequest | None:
        """What is remembered of the same request of the same client, unless it is free again."""
        if not self._may_know(request):
            return None
        now_s = self._now()
        if (entry := self._find(_fingerprint(request), now_s)) is None:
            return None
        self._update(entry, now_s)
        return None if entry.free_s is not None and entry.free_s <= now_s else entry

    def record_answer(self, request: InferenceRequest) -> None:
        """Record that a request has been answered: it does not halt engines."""
        is_small = len(request.body) <= MAX_KEPT_BYTES
        if not is_small and not self._may_know(request):
            return
        key, now_s = _fingerprint(request), self._now()
        if entry := self._requests.get(key):
            entry.free_s = now_s
            entry.victims = frozenset()  # what happens to them from now on is another halt
        if is_small:
            self._answered[key] = now_s
            self._answered.move_to_end(key)
            if len(self._answered) > MAX_ANSWERED:
                self._answered.popitem(last=False)

    def _may_know(self, request: InferenceRequest) -> bool:
        """Whether it is worth while to hash a request's body."""
        if not self._requests:
            return False
        size = len(request.body)
        return size <= MAX_KEPT_BYTES or any(e.size == size for e in self._requests.values())

    def _find(self, key: Fingerprint, now_s: float) -> QuarantinedRequest | None:
        requests = self._requests
        while requests and next(iter(requests.values())).added_s + MEMORY_S <= now_s:
            requests.popitem(last=False)
        return requests.get(key)

    def _was_answered(self, key: Fingerprint, now_s: float) -> bool:
        answered_s = self._answered.get(key)
        return answered_s is not None and answered_s > now_s - ANSWERED_S

    def _follow(self, _replica: str) -> None:
        """Follow a change of a replica."""
        if self._requests:
            now_s = self._now()
            for entry in self._requests.values():
                self._update(entry, now_s)

    def _update(self, entry: QuarantinedRequest, now_s: float) -> None:
        """Set when a request is free, once all of its victims are back or replaced."""
        if entry.free_s is not None:
            return
        replicas = self._replicas
        lost = [victim for victim in entry.victims if replicas.get(victim) is None]
        if lost and entry.lost_s is None:
            entry.lost_s = now_s
        if not all(replicas.is_healthy(victim) for victim in entry.victims.difference(lost)):
            return
        known = entry.victims | entry.others
        new = sum(state.replica.id not in known for state in replicas.all())
        if new >= len(lost) or now_s >= (entry.lost_s or 0.0) + self._model.start_s:
            entry.free_s = now_s + entry.period_s


def _fingerprint(request: InferenceRequest) -> Fingerprint:
    return request.tenant, request.path, xxhash.xxh3_128_digest(request.body)


def _is_same(former: QuarantinedRequest, victims: frozenset[str], now_s: float) -> bool:
    """Whether both are about the same halt."""
    return victims <= former.victims and now_s < former.added_s + QUARANTINE_S
