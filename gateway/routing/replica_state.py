"""What a router knows of one replica, and whether the replica can start one more request now."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from gateway.kvcache.prefix import Prompt
from gateway.kvcache.shadow_cache import ShadowCache
from gateway.routing.decision import Decision
from gateway.routing.fleet import Replica
from gateway.telemetry import Load, Update

HEADROOM = 1 / 16
"""Of an engine's slots, how many requests may wait in it, so that none idles for a round trip."""
RESERVE = 1 / 4
"""Of an engine's slots and KV cache, what batch requests leave free."""
SPARE = 1 / 32
"""Of the same, what those leave free who have had their share."""
REFUSED = 2.0
"""Times the engine's limit that a prompt is thought to have, so that it will surely be refused."""
LOAD_S = 1.0
"""What loading an adapter is taken to cost before a replica has told what it takes."""
BROKEN_S = 3600.0
"""What an adapter is taken to cost where it cannot be loaded, or is none: more than all else."""
IDLE = Load(running=0, waiting=0, pending_tokens=0, free_tokens=0)
"""Stands for the load of a replica that has not told it."""


def prefill_tokens(decision: Decision) -> float:
    """New tokens of a request, estimated, but no more than its engine can take."""
    tokens, facts = decision.new_tokens, decision.replica.metadata.facts
    if tokens > facts.max_model_len > 0:
        tokens = facts.max_model_len
    return facts.kv_tokens if tokens > facts.kv_tokens > 0 else tokens


def room_tokens(decision: Decision) -> float:
    """New tokens of a request that need room: none, where its engine will refuse it."""
    most = REFUSED * decision.replica.metadata.facts.max_model_len
    return 0.0 if decision.prompt_tokens > most > 0 else prefill_tokens(decision)


@dataclass(slots=True, eq=False)
class SentRequest:
    """A request of this router's on its way to, or in, an engine."""

    decision: Decision
    prompt: Prompt
    new_tokens: float
    """Those that need room."""
    is_expected: bool = True
    """Its keys are expected at the replica and not confirmed."""
    is_answered: bool = False
    is_finished: bool = False
    """Telemetry has told of its end."""


@dataclass(slots=True, eq=False)
class ReplicaState:
    """One replica, as this router sees it."""

    replica: Replica
    load: Load = IDLE
    is_followed: bool = False
    """Its telemetry arrives."""
    is_draining: bool = False
    sent: dict[int, SentRequest] = field(default_factory=dict)
    """This router's requests there, by the ids of their dispatches."""
    unconfirmed: dict[int, SentRequest] = field(default_factory=dict)
    """Those that its telemetry has not accounted for."""
    ended: dict[int, tuple[float, SentRequest]] = field(default_factory=dict)
    """Those answered before its telemetry spoke of them, and until when it may."""
    ended_since: int = 0
    """Requests in `load` that this router has seen the end of."""
    held: dict[int, SentRequest] = field(default_factory=dict)
    """Requests that this router holds back until it can start them."""
    released: dict[int, SentRequest] = field(default_factory=dict)
    """Those of them that are about to be sent."""
    wanted: Counter[str] = field(default_factory=Counter)
    """How many of those sent, held and released are for each adapter."""
    books: ShadowCache | None = None
    """Our own idea of its cache, while there is no telemetry."""

    def take(self, update: Update) -> None:
        """The replica says how it stands."""
        self.is_draining = update.is_draining
        self.ended_since = 0
        if update.load is not None:
            self.load = update.load
        if update.adapters is not None:
            self.replica.adapters = update.adapters

    def load_s(self, adapter: str, copies: Mapping[str, int]) -> float:
        """What having an adapter loaded costs: nothing where it is, or is about to be.

        `copies`: on how many replicas each is loaded. Where the last copy of another one has to go,
        that will have to be loaded again: twice as much.
        """
        state = self.replica.adapters
        if adapter in state.loaded or self.wanted[adapter]:
            return 0.0
        if adapter in state.broken or adapter not in self.replica.metadata.facts.adapters:
            return BROKEN_S
        cost_s = state.load_s or LOAD_S
        is_full = len(state.loaded) >= state.max_loaded > 0
        return 2 * cost_s if is_full and copies[state.loaded[0]] == 1 else cost_s

    def want(self, adapter: str) -> None:
        """A request for it is sent there, or waits to be."""
        if adapter:
            self.wanted[adapter] += 1

    def want_no_more(self, adapter: str) -> None:
        """It is not, any more."""
        if adapter and (left := self.wanted[adapter] - 1) > 0:
            self.wanted[adapter] = left
        elif adapter:
            del self.wanted[adapter]

    @property
    def requests(self) -> int:
        """Sequences that it has, and those on their way there."""
        here = max(0, self.load.running + self.load.waiting - self.ended_since)
        coming = self._coming
        return here + (sum([sent.decision.sequences for sent in coming]) if coming else 0)

    @property
    def coming_tokens(self) -> float:
        """New tokens of what is on its way there."""
        return sum([sent.new_tokens for sent in self._coming])

    @property
    def _coming(self) -> Collection[SentRequest]:
        if not self.released:
            return self.unconfirmed.values()
        return [*self.unconfirmed.values(), *self.released.values()]

    def has_room(
        self, new_tokens: float, *, sequences: int = 1, is_batch: bool, is_spared: bool = False
    ) -> bool:
        """Whether a request with so many new tokens would start without waiting for others.

        `is_spared`: it leaves something free for those who have had less. One with more sequences
        than the engine can run takes all of it.
        """
        if self.is_draining:
            return False  # it refuses all that is new; another may come in its place
        requests = self.requests
        if not requests:
            return True
        facts, load = self.replica.metadata.facts, self.load
        if is_batch or is_spared:
            reserve = RESERVE if is_batch else SPARE
            slots = max(1, facts.max_sequences - math.ceil(reserve * facts.max_sequences))
            may_wait, spare = 1, reserve * facts.kv_tokens
        else:
            may_wait, spare = max(1, int(HEADROOM * facts.max_sequences)), 0.0
            slots = facts.max_sequences + may_wait
        taken = min(sequences, facts.max_sequences, slots) if sequences > 1 else 1
        if requests + taken > slots or load.waiting >= may_wait:
            return False
        if not facts.kv_tokens:
            return True
        free_tokens = facts.kv_tokens if load is IDLE else load.free_tokens
        return self.coming_tokens + new_tokens <= free_tokens - spare
