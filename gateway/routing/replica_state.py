"""State of one replica, as this router sees it: its load, this router's requests, its health.

The load comes from the replica's telemetry. Requests of this router that the telemetry does not
include yet are added to it. Without telemetry, a shadow cache of this router's own requests takes
the place of the cache that the replica would report. The state owns the replica's entries in the
model's prefix index.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from gateway.kvcache.prefix import Prompt
from gateway.kvcache.prefix_index import PrefixIndex, PrefixMatch
from gateway.kvcache.shadow_cache import ShadowCache
from gateway.routing.decision import Decision
from gateway.routing.engine_limits import engine_limits, needed_slots
from gateway.routing.fleet import Replica
from gateway.routing.policy import Candidate, RequestProfile
from gateway.routing.recent_tokens import FinishedTokens, RecentTokens
from gateway.routing.replica_health import ReplicaHealth
from gateway.telemetry.update import Load, Update, unpack_keys, unpack_tokens

DEFAULT_ADAPTER_LOAD_S = 1.0
"""Time to load an adapter, before the replica has reported how long it takes."""
UNLOADABLE_S = 3600.0
"""Cost of an adapter that the replica cannot load: more than any other cost."""
CONFIRMATION_S = 0.5
"""How long an ended request's keys stay expected; telemetry needs a tenth of that."""
SIGN_OF_LIFE_S = 1.1
"""A replica in good order is heard once a second; and a little longer for the way."""
NO_LOAD = Load(running=0, waiting=0, pending_tokens=0, free_tokens=0)
"""Stands for the load of a replica that has not reported it."""


@dataclass(slots=True, eq=False)
class AssignedRequest:
    """A request of this router that is queued for, on its way to, or in a replica."""

    decision: Decision
    prompt: Prompt
    new_tokens: float
    """New tokens of its prompt that need KV cache."""
    is_expected: bool = True
    """Whether its keys are expected at the replica and not confirmed."""
    is_refused: bool = False
    """Whether the engine has refused it, and so computed nothing of it."""
    is_finished: bool = False
    """Whether the replica's telemetry has reported its end."""
    sent_s: float = 0.0
    """When it was sent."""
    accepted_s: float = 0.0
    """When the replica's telemetry included it; 0 until then."""


class ReplicaState:
    """One replica, as this router sees it; `now` is in seconds."""

    __slots__ = (
        *("_adapter_requests", "_ended", "_ended_since_load", "_now", "_prefix_index", "_queued"),
        *("_heard_s", "_released", "_sent", "_shadow_cache", "_silenced_by", "_unconfirmed"),
        *("_recent_tokens", "health", "load", "replica"),
    )

    def __init__(
        self, replica: Replica, prefix_index: PrefixIndex, now: Callable[[], float]
    ) -> None:
        self.replica = replica
        self.health = ReplicaHealth()
        self.load = NO_LOAD
        self._recent_tokens = RecentTokens()
        self._prefix_index = prefix_index
        self._now = now
        self._sent: dict[int, AssignedRequest] = {}
        """Requests at the replica, by the ids of their decisions."""
        self._unconfirmed: dict[int, AssignedRequest] = {}
        """The sent requests that its telemetry does not include yet."""
        self._ended: dict[int, tuple[float, AssignedRequest]] = {}
        """Requests answered before telemetry included them, and until when it may; in order."""
        self._ended_since_load = 0
        """Requests in `load` that have ended since it was reported."""
        self._queued: dict[int, AssignedRequest] = {}
        """Requests that wait in this router until the replica can start them."""
        self._released: dict[int, AssignedRequest] = {}
        """Requests that have waited and are about to be sent."""
        self._adapter_requests: Counter[str] = Counter()
        """Number of requests sent, queued and released for each adapter."""
        self._shadow_cache: ShadowCache | None = self._empty_shadow_cache()
        """Stands in for the replica's cache while there is no telemetry."""
        self._heard_s = now()
        """When its telemetry was heard last."""
        self._silenced_by: frozenset[int] = frozenset()
        """Requests that came to it just before it was given up."""
        prefix_index.add_replica(replica.id)

    @property
    def requests_sent(self) -> int:
        """Number of this router's requests at the replica."""
        return len(self._sent)

    @property
    def sequences_sent(self) -> int:
        """Sequences of this router's requests at the replica."""
        return sum([request.decision.sequences for request in self._sent.values()])

    @property
    def requests_queued(self) -> int:
        """Number of this router's requests that wait for the replica."""
        return len(self._queued)

    @property
    def recent_tokens(self) -> FinishedTokens:
        """Tokens of the requests that the replica has finished lately, whichever router's."""
        return self._recent_tokens.sums(self._now())

    @property
    def has_load(self) -> bool:
        """Whether the replica has reported its load, and its telemetry still arrives."""
        return self.load is not NO_LOAD

    @property
    def sequences(self) -> int:
        """Sequences that the replica has, and those on their way to it."""
        here = max(0, self.load.running + self.load.waiting - self._ended_since_load)
        coming = self._coming
        return here + (sum([request.decision.sequences for request in coming]) if coming else 0)

    def close(self) -> None:
        """Remove the replica from the prefix index."""
        self._prefix_index.remove_replica(self.replica.id)

    def hold(self, request: AssignedRequest) -> None:
        """Record a request that waits until the replica can start it."""
        self._queued[request.decision.id] = request
        self._count_adapter(request.decision.adapter)
        self._prefix_index.add_expected(self.replica.id, request.prompt.keys)

    def release(self, id_: int) -> None:
        """Record that a waiting request is about to be sent."""
        if request := self._queued.pop(id_, None):
            self._released[id_] = request

    def discard(self, id_: int) -> None:
        """Forget a waiting or released request: it is sent now, or never."""
        if request := self._queued.pop(id_, None) or self._released.pop(id_, None):
            self._discount_adapter(request.decision.adapter)
            self._stop_expecting(request)

    def record_sent(self, request: AssignedRequest) -> None:
        """Record a request that is sent to the replica."""
        id_ = request.decision.id
        self._prefix_index.add_expected(self.replica.id, request.prompt.keys)
        request.sent_s = self._now()
        self.health.outlier_detector.record_sent(request.sent_s)
        self._sent[id_] = self._unconfirmed[id_] = request
        self._count_adapter(request.decision.adapter)

    def record_refused(self, id_: int) -> None:
        """Record that the engine refuses a request, which so brings no keys to its cache."""
        if request := self._sent.get(id_):
            request.is_refused = True
            self._stop_expecting(request)

    def record_ended(self, request: AssignedRequest, *, is_answered: bool) -> None:
        """Record the end of a request that was sent to the replica.

        `is_answered`: the answer came to its end, so its keys are in the replica's cache.
        """
        id_ = request.decision.id
        self.health.outlier_detector.release_probe()
        self._forget_overdue()
        if self._sent.pop(id_, None):
            self._discount_adapter(request.decision.adapter)
        is_unconfirmed = self._unconfirmed.pop(id_, None) is not None
        if not (is_unconfirmed or request.is_finished):
            self._ended_since_load += 1
        if is_unconfirmed and self.health.has_telemetry and is_answered:
            self._ended[id_] = (self._now() + CONFIRMATION_S, request)
        else:
            self._stop_expecting(request)
        if self._shadow_cache is not None and is_answered and not request.is_refused:
            self._add_to_shadow(self._shadow_cache, request)

    def record_update(self, update: Update) -> None:
        """Record a frame of the replica's telemetry.

        Raises:
            ValueError: the frame is malformed.
        """
        self._heard_s = self._now()
        name, index = self.replica.id, self._prefix_index
        keys, tokens = unpack_keys(update.added), unpack_tokens(update.added_tokens)
        if len(keys) != len(tokens):
            raise ValueError("keys without tokens")
        if update.is_snapshot:
            self._shadow_cache = None
            self.health.has_telemetry = True
            self._unconfirmed.update(self._sent)
            index.replace(name, keys, tokens)
        else:
            index.add(name, keys, tokens)
            index.remove(name, unpack_keys(update.dropped))
        self.health.is_draining = update.is_draining
        self._ended_since_load = 0
        if update.load is not None:
            self.load = update.load
        if update.adapters is not None:
            self.replica.record_adapters(update.adapters)
        for id_ in update.accepted:
            self._confirm(id_)
        for finished in update.finished:
            self._confirm(finished.id)
            self._recent_tokens.record(finished, self._heard_s)
            if (request := self._sent.get(finished.id)) is not None:
                request.is_finished = True
        self._forget_overdue()

    def lose_telemetry(self) -> None:
        """Go on without telemetry: by this router's own requests, and a shadow of the cache."""
        self.health.has_telemetry = False
        self.load = NO_LOAD
        self._unconfirmed.update(self._sent)
        self._prefix_index.replace(self.replica.id, (), ())
        self._shadow_cache = self._empty_shadow_cache()

    def record_silence(self, stalled_s: float = math.inf) -> None:
        """Record that the replica is given up, and which requests may be what halted it.

        A replica that is silent (`stalled_s` is infinite) has halted before it took these in: they
        had been sent by the time at which it should have been heard again. One that makes no
        progress halted at the first step of these: they were accepted when its last step ended.
        """
        if math.isinf(stalled_s):
            until_s = self._heard_s + SIGN_OF_LIFE_S
            found = [
                id_
                for id_, sent in self._sent.items()
                if sent.sent_s <= until_s and not sent.accepted_s
            ]
        else:
            since_s = self._now() - stalled_s
            found = [
                id_
                for id_, sent in self._sent.items()
                if abs(sent.accepted_s - since_s) <= SIGN_OF_LIFE_S
            ]
        self._silenced_by = frozenset(found)

    def has_silenced(self, id_: int) -> bool:
        """Whether a request may be what halted the replica when it was given up last."""
        return id_ in self._silenced_by

    def candidate(
        self,
        request: RequestProfile,
        match: PrefixMatch,
        tokens_per_byte: float,
        loaded_copies: Mapping[str, int],
    ) -> Candidate:
        """Return the replica as a candidate for a request.

        `match`: the part of the prompt that the replica holds. `tokens_per_byte`: of this prompt.
        `loaded_copies`: on how many replicas each adapter is loaded.
        """
        load = self.load
        pending: float = load.pending_tokens
        if self._unconfirmed or self._released:
            pending += self._coming_tokens
        if self._queued:
            pending += sum([queued.new_tokens for queued in self._queued.values()])
        block_size = self.replica.metadata.facts.block_size
        cached = 0.0
        if match.keys and block_size:
            # Engines cache whole blocks, and always compute the last token of a prompt.
            known = match.tokens or match.keys * request.prompt.key_bytes * tokens_per_byte
            most = min(known, request.prompt_tokens - 1)
            cached = max(0.0, most // block_size * block_size)
        adapter = request.adapter
        return Candidate(
            replica=self.replica,
            cached_keys=match.keys,
            cached_tokens=cached,
            running=load.running + len(self._unconfirmed) + len(self._released),
            waiting=load.waiting + len(self._queued),
            pending_tokens=pending,
            free_tokens=load.free_tokens,
            adapter_load_s=self._adapter_load_s(adapter, loaded_copies) if adapter else 0.0,
        )

    def has_room(
        self, new_tokens: float, *, sequences: int = 1, is_batch: bool, is_over_share: bool = False
    ) -> bool:
        """Whether a request with so many new tokens would start without waiting for others.

        `sequences`: of the request. If it has many, only some of them need a slot at once.
        `is_over_share`: its tenant is above its fair share, and leaves something free for others.
        """
        if self.health.is_draining:
            return False  # it rejects new requests; another replica may take its place
        facts, load = self.replica.metadata.facts, self.load
        present = self._present(facts.max_sequences)
        if not present:
            return True
        limits = engine_limits(facts, is_batch=is_batch, is_over_share=is_over_share)
        needed = needed_slots(sequences, facts, limits, is_batch=is_batch) if sequences > 1 else 1
        waiting = load.waiting - load.yielding
        if load.yielding and needed == sequences and not (is_batch or is_over_share):
            # It gets the next slot that becomes free, before the sequences that yield.
            present, waiting = max(0, present - load.running), 0
        if present + needed > limits.slots or waiting >= limits.waiting:
            return False
        if not facts.kv_tokens:
            return True
        free_tokens = facts.kv_tokens if load is NO_LOAD else load.free_tokens
        return self._coming_tokens + new_tokens <= free_tokens - limits.reserved_tokens

    def _present(self, slots: int) -> int:
        """Sequences that a new request would find before it.

        Those of a large request that wait are not: it lets others pass. While it is on its way, one
        slot is kept for them.
        """
        load = self.load
        here = max(0, load.running + load.waiting - load.yielding - self._ended_since_load)
        coming = self._coming
        if not coming:
            return here
        most = max(1, slots - 1)
        return here + sum([min(request.decision.sequences, most) for request in coming])

    @property
    def _coming(self) -> Collection[AssignedRequest]:
        """Requests on their way to the replica that its load does not include."""
        if not self._released:
            return self._unconfirmed.values()
        return [*self._unconfirmed.values(), *self._released.values()]

    @property
    def _coming_tokens(self) -> float:
        return sum([request.new_tokens for request in self._coming])

    def _adapter_load_s(self, adapter: str, loaded_copies: Mapping[str, int]) -> float:
        """Time to load an adapter: none if it is loaded, or about to be.

        Twice the time if the last loaded copy of another adapter has to be unloaded, because that
        one will have to be loaded again.
        """
        state = self.replica.adapters
        if adapter in state.loaded or self._adapter_requests[adapter]:
            return 0.0
        if adapter in state.broken or adapter not in self.replica.metadata.facts.adapters:
            return UNLOADABLE_S
        load_s = state.load_s or DEFAULT_ADAPTER_LOAD_S
        is_full = len(state.loaded) >= state.max_loaded > 0
        return 2 * load_s if is_full and loaded_copies[state.loaded[0]] == 1 else load_s

    def _count_adapter(self, adapter: str) -> None:
        if adapter:
            self._adapter_requests[adapter] += 1

    def _discount_adapter(self, adapter: str) -> None:
        if adapter and (remaining := self._adapter_requests[adapter] - 1) > 0:
            self._adapter_requests[adapter] = remaining
        elif adapter:
            del self._adapter_requests[adapter]

    def _confirm(self, id_: int) -> None:
        request = self._unconfirmed.pop(id_, None) or self._ended.pop(id_, (0.0, None))[1]
        if request is not None:
            request.accepted_s = request.accepted_s or self._heard_s
            self._stop_expecting(request)

    def _stop_expecting(self, request: AssignedRequest) -> None:
        if request.is_expected:
            request.is_expected = False
            self._prefix_index.remove_expected(self.replica.id, request.prompt.keys)

    def _forget_overdue(self) -> None:
        """Stop expecting the keys of ended requests that telemetry should have included by now."""
        now_s = self._now()
        while self._ended:
            id_ = next(iter(self._ended))
            until_s, request = self._ended[id_]
            if until_s > now_s:
                return
            del self._ended[id_]
            self._stop_expecting(request)

    def _empty_shadow_cache(self) -> ShadowCache:
        return ShadowCache(self.replica.metadata.facts.kv_tokens)

    def _add_to_shadow(self, shadow: ShadowCache, request: AssignedRequest) -> None:
        cached_prompt = shadow.record_arrival(request.prompt, round(request.decision.prompt_tokens))
        shadow.record_end(cached_prompt)
        added, evicted = shadow.take_changes()
        self._prefix_index.add(self.replica.id, list(added), list(added.values()))
        self._prefix_index.remove(self.replica.id, evicted)
