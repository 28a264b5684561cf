"""Chooses a model's replicas: what is known of each, put before the policy, and kept up to date.

What a replica's load is comes from its telemetry; to this are added the requests of this router
that it has not confirmed yet. A replica without telemetry is judged by this router's own books: the
requests it has there, and a ledger of what they must have left in its cache.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from gateway.kvcache.prefix import TOKEN_ID_BYTES, Prompt
from gateway.kvcache.prefix_index import PrefixIndex, PrefixMatch, packed, unpacked, unpacked_tokens
from gateway.kvcache.shadow_cache import ShadowCache
from gateway.routing.cost_model import CostModel
from gateway.routing.decision import Decision, DecisionLog
from gateway.routing.fleet import Replica, ServedModel
from gateway.routing.outliers import Outliers
from gateway.routing.policies.policy import Candidate, RequestProfile, RoutingPolicy
from gateway.routing.policies.registry import make_policy
from gateway.routing.replica_state import (
    IDLE,
    ReplicaState,
    SentRequest,
    prefill_tokens,
    room_tokens,
)
from gateway.routing.target import Target
from gateway.telemetry import Dispatch, Update

AGEING = 0.2
"""Seconds of prefill that a waiting request is worth for each second it has waited."""
SHUN_S = 5.0
"""How long others are preferred to a replica that could not be reached, unless it is heard."""
CONFIRMATION_S = 0.5
"""How long after its answer a request's keys are expected: telemetry takes a tenth of that."""
BATCH_MS = 10**12
"""Milliseconds that a batch request is due after all others: a century of ageing is less."""
READY, UNHEARD = "ready", "unheard"
SOUND = frozenset({READY, UNHEARD})
"""How replicas stand to which no others are preferred."""
NO_COPIES: Mapping[str, int] = {}
NOTHING = PrefixMatch(keys=0, tokens=0)

Matches = Mapping[str, PrefixMatch]


class Scheduler:
    """One model's. `now` is the time of day in seconds: requests' priorities are made from it."""

    def __init__(
        self, model: ServedModel, log: DecisionLog, rng: random.Random, now: Callable[[], float]
    ) -> None:
        self.latency = CostModel()
        self.prefix_index = PrefixIndex()
        self.outliers = Outliers(now)
        self.watcher: Callable[[str], None] | None = None
        """Told of every replica that may have more room, or be preferred less or more, by now."""
        self._model = model
        self._log = log
        self._rng = rng
        self._now = now
        self._policy: RoutingPolicy = make_policy(model.options.routing.policy, rng)
        self._states: dict[str, ReplicaState] = {}

    def choose(self, target: Target, avoid: Collection[str] = ()) -> Decision:
        """Choose a replica for a request; O(keys + replicas).

        `avoid`: ids of replicas to which others are preferred.

        Raises:
            ModelUnavailable: the model has no replica now.
        """
        self._model.check_available()
        request, prompt, adapter = target.request, target.prompt, target.adapter
        self.sync()
        policy = self._model.options.routing.policy
        if self._policy.name != policy:
            self._policy = make_policy(policy, self._rng)
        estimates = self.latency.estimates
        matches = self.prefix_index.match(prompt.keys)
        profile = RequestProfile(
            prompt,
            self._prompt_tokens(prompt, matches),
            self.latency.output_tokens(request.head.max_tokens),
            request.session,
            adapter,
        )
        copies = self._copies() if adapter else NO_COPIES
        candidates = [
            self._candidate(state, profile, matches.get(state.replica.id, NOTHING), copies)
            for state in self._preferred(avoid)
        ]
        choice = self._policy.choose(profile, candidates, estimates)
        chosen = candidates[choice.index]
        new_tokens = max(0.0, profile.prompt_tokens - chosen.cached_tokens)
        return Decision(
            id=self._rng.getrandbits(64) or 1,
            request_id=request.request_id.decode(),
            model=self._model.name,
            policy=self._policy.name,
            decided_s=self._now(),
            candidates=candidates,
            costs=choice.costs,
            index=choice.index,
            prompt_tokens=profile.prompt_tokens,
            output_tokens=profile.output_tokens,
            ttft_s=chosen.load_s
            + (chosen.pending_tokens + new_tokens) * estimates.prefill_s
            + estimates.step_s,
            estimates=estimates,
            has_session=bool(request.session),
            adapter=adapter,
            is_batch=request.is_batch,
            sequences=target.sequences,
        )

    @contextlib.contextmanager
    def sending(self, decision: Decision, target: Target) -> Iterator[Dispatch]:
        """Count a request at its replica while it is being answered there.

        Gives what has to go with it to the engine.
        """
        sent = SentRequest(decision, target.prompt, room_tokens(decision))
        self._log.add(decision)
        self._send(sent)
        try:
            yield self._dispatch(sent, target.renamed)
            sent.is_answered = True
        finally:
            self._log.end(decision)
            self._end(sent)

    def has_room(self, decision: Decision, *, is_spared: bool = False) -> bool:
        """Whether the chosen replica can start the request now.

        `is_spared`: it leaves something free for those who have had less.
        """
        state = self._states.get(decision.replica.id)
        return state is None or state.has_room(
            room_tokens(decision),
            sequences=decision.sequences,
            is_batch=decision.is_batch,
            is_spared=is_spared,
        )

    def has_slot(self, decision: Decision, *, is_spared: bool = False) -> bool:
        """Whether the chosen replica could start a small request in the place of this one."""
        state = self._states.get(decision.replica.id)
        return state is None or state.has_room(0.0, is_batch=decision.is_batch, is_spared=is_spared)

    def shun(self, replica: Replica, seconds: float = SHUN_S) -> None:
        """Prefer others to a replica for so long: it could not be reached, or broke off."""
        until_s = self._now() + seconds
        replica.shunned_until_s = max(replica.shunned_until_s, until_s)

    def follows(self, replica: str) -> bool:
        """Whether a replica is there, and its telemetry arrives."""
        state = self._states.get(replica)
        return state is not None and state.is_followed

    def is_sound(self, replica: str) -> bool:
        """Whether a replica is there, and none that others are preferred to."""
        state = self._states.get(replica)
        return state is not None and self._standing(state) in SOUND

    @property
    def sound(self) -> set[str]:
        """All such replicas."""
        return set(filter(self.is_sound, self._states))

    @property
    def in_flight(self) -> int:
        """This router's requests that replicas are answering."""
        return sum(len(state.sent) for state in self._states.values())

    @property
    def standings(self) -> Counter[str]:
        """How many replicas stand how, as `gateway.metrics.REPLICAS` calls it."""
        self.sync()
        return Counter(map(self._standing, self._states.values()))

    def due_s(self, decision: Decision) -> float:
        """When a waiting request is to start, beside others: the least is the first."""
        return (
            prefill_tokens(decision) * self.latency.estimates.prefill_s
            + AGEING * decision.decided_s
        )

    def hold(self, decision: Decision, target: Target) -> None:
        """Count a request as waiting for its replica, which cannot start it yet."""
        name = decision.replica.id
        if state := self._states.get(name):
            state.held[decision.id] = SentRequest(decision, target.prompt, room_tokens(decision))
            state.want(decision.adapter)
            self.prefix_index.expect(name, target.prompt.keys)

    def release(self, decision: Decision) -> None:
        """Count a held request as on its way to its replica, until it is dropped."""
        state = self._states.get(decision.replica.id)
        if state is not None and (held := state.held.pop(decision.id, None)):
            state.released[decision.id] = held

    def drop(self, decision: Decision) -> None:
        """Count a request no more that was held or released; it is sent now, or not at all."""
        if state := self._states.get(decision.replica.id):
            id_ = decision.id
            if held := state.held.pop(id_, None) or state.released.pop(id_, None):
                state.want_no_more(decision.adapter)
                self._expect_no_more(held)

    def hear(self, replica: str, update: Update) -> None:
        """Take a frame of a replica's telemetry into account.

        Raises:
            ValueError: it cannot be understood.
        """
        self.sync()
        state = self._states.get(replica)
        if state is None:
            return
        keys, tokens = unpacked(update.added), unpacked_tokens(update.added_tokens)
        if len(keys) != len(tokens):
            raise ValueError("keys without tokens")
        if update.is_snapshot:
            state.books = None
            state.is_followed = True
            state.unconfirmed.update(state.sent)
            self.prefix_index.replace(replica, keys, tokens)
        else:
            self.prefix_index.add(replica, keys, tokens)
            self.prefix_index.drop(replica, unpacked(update.dropped))
        state.take(update)
        for id_ in update.accepted:
            self._confirm(state, id_)
        for finished in update.finished:
            self._confirm(state, finished.id)
            if (sent := state.sent.get(finished.id)) is not None:
                sent.is_finished = True
            self._log.finish(finished)
            self.latency.learn(finished)
        self._let_go(state)
        self._tell(replica)

    def lose(self, replica: str) -> None:
        """A replica's telemetry has broken off: go on with our own books."""
        state = self._states.get(replica)
        if state is not None and state.is_followed:
            state.is_followed = False
            state.load = IDLE
            state.unconfirmed.update(state.sent)
            self.prefix_index.replace(replica, (), ())
            state.books = ShadowCache(state.replica.metadata.facts.kv_tokens)
            self._tell(replica)

    def sync(self) -> None:
        """Follow the model's replicas as they come and go."""
        replicas = self._model.replicas
        if replicas.keys() == self._states.keys():
            return
        for name in self._states.keys() - replicas.keys():
            self.prefix_index.leave(name)
            self.outliers.forget(name)
            del self._states[name]
            self._tell(name)
        for name, replica in replicas.items():
            if name not in self._states:
                self.prefix_index.join(name)
                books = ShadowCache(replica.metadata.facts.kv_tokens)
                self._states[name] = ReplicaState(replica, books=books)
                self._tell(name)

    def _standing(self, state: ReplicaState) -> str:
        if state.is_draining:
            standing = "draining"
        elif self.outliers.is_out(state.replica.id):
            standing = "ejected"
        elif state.replica.shunned_until_s > self._now():
            standing = "shunned"
        else:
            standing = READY if state.is_followed else UNHEARD
        return standing

    def _tell(self, replica: str) -> None:
        if self.watcher is not None:
            self.watcher(replica)

    def _preferred(self, avoid: Collection[str]) -> Collection[ReplicaState]:
        """The replicas to choose among: those of the best standing that any has."""
        now_s, out = self._now(), self.outliers.out
        live = [state for state in self._states.values() if not state.is_draining]
        reachable = [state for state in live if state.replica.shunned_until_s <= now_s]
        sound = [state for state in reachable if state.replica.id not in out] if out else reachable
        if avoid:
            for states in (sound, reachable, live):
                if others := [state for state in states if state.replica.id not in avoid]:
                    return others
        return sound or reachable or live or self._states.values()

    def _candidate(
        self,
        state: ReplicaState,
        request: RequestProfile,
        match: PrefixMatch,
        copies: Mapping[str, int],
    ) -> Candidate:
        load, prompt = state.load, request.prompt
        pending: float = load.pending_tokens
        if state.unconfirmed or state.released:
            pending += state.coming_tokens
        if state.held:
            pending += sum([held.new_tokens for held in state.held.values()])
        facts = state.replica.metadata.facts
        cached = 0.0
        if match.keys and facts.block_size:
            # The last token of a prompt is always computed, and engines cache whole blocks.
            known = match.tokens or match.keys * prompt.key_bytes * self._tokens_per_byte(prompt)
            most = min(known, request.prompt_tokens - 1)
            cached = max(0.0, most // facts.block_size * facts.block_size)
        return Candidate(
            replica=state.replica,
            cached_keys=match.keys,
            cached_tokens=cached,
            running=load.running + len(state.unconfirmed) + len(state.released),
            waiting=load.waiting + len(state.held),
            pending_tokens=pending,
            free_tokens=load.free_tokens,
            load_s=state.load_s(request.adapter, copies) if request.adapter else 0.0,
        )

    def _copies(self) -> Counter[str]:
        """On how many replicas each adapter is loaded."""
        states = self._states.values()
        return Counter(name for state in states for name in state.replica.adapters.loaded)

    def _prompt_tokens(self, prompt: Prompt, matches: Matches) -> float:
        """What engines have counted of the beginning, and an estimate of the rest."""
        if not matches:
            return prompt.size * self._tokens_per_byte(prompt)
        longest = max(matches.values(), key=lambda match: match.keys)
        known_bytes = longest.keys * prompt.key_bytes if longest.tokens else 0
        rest = (prompt.size - known_bytes) * self._tokens_per_byte(prompt)
        return longest.tokens + rest

    def _tokens_per_byte(self, prompt: Prompt) -> float:
        return 1 / TOKEN_ID_BYTES if prompt.is_token_ids else self.latency.estimates.tokens_per_byte

    def _send(self, sent: SentRequest) -> None:
        name = sent.decision.replica.id
        state = self._states.get(name)
        if state is None:
            return
        self.prefix_index.expect(name, sent.prompt.keys)
        self.outliers.begin(name)
        state.sent[sent.decision.id] = state.unconfirmed[sent.decision.id] = sent
        state.want(sent.decision.adapter)

    def _confirm(self, state: ReplicaState, id_: int) -> None:
        sent = state.unconfirmed.pop(id_, None) or state.ended.pop(id_, (0.0, None))[1]
        if sent is not None:
            self._expect_no_more(sent)

    def _expect_no_more(self, sent: SentRequest) -> None:
        if sent.is_expected:
            sent.is_expected = False
            self.prefix_index.expect_no_more(sent.decision.replica.id, sent.prompt.keys)

    def _end(self, sent: SentRequest) -> None:
        id_ = sent.decision.id
        state = self._states.get(sent.decision.replica.id)
        if state is None:
            return
        self._let_go(state)
        if state.sent.pop(id_, None):
            state.want_no_more(sent.decision.adapter)
        is_unconfirmed = state.unconfirmed.pop(id_, None) is not None
        if not (is_unconfirmed or sent.is_finished):
            state.ended_since += 1
        if is_unconfirmed and state.is_followed and sent.is_answered:
            state.ended[id_] = (self._now() + CONFIRMATION_S, sent)
        else:
            self._expect_no_more(sent)
        if state.books is not None and sent.is_answered:
            self._enter(state, state.books, sent)
        self._tell(state.replica.id)

    def _let_go(self, state: ReplicaState) -> None:
        """Expect nothing more of requests that telemetry should have spoken of by now."""
        now_s = self._now()
        while state.ended:
            id_ = next(iter(state.ended))  # in the order of their ends
            until_s, sent = state.ended[id_]
            if until_s > now_s:
                return
            del state.ended[id_]
            self._expect_no_more(sent)

    def _enter(self, state: ReplicaState, books: ShadowCache, sent: SentRequest) -> None:
        """Note in our own books what an answered request has left in a replica's cache."""
        books.end(books.begin(sent.prompt, round(sent.decision.prompt_tokens)))
        added, dropped = books.take_changes()
        self.prefix_index.add(state.replica.id, list(added), list(added.values()))
        self.prefix_index.drop(state.replica.id, dropped)

    def _dispatch(self, sent: SentRequest, model: str) -> Dispatch:
        prompt, decision = sent.prompt, sent.decision
        return Dispatch(
            id=decision.id,
            keys=packed(prompt.keys),
            key_bytes=prompt.key_bytes,
            prompt_bytes=prompt.size,
            seed=prompt.seed,
            reply_start=prompt.reply_start,
            is_token_ids=prompt.is_token_ids,
            has_media=prompt.has_media,
            priority=round(1000 * self.due_s(decision)) + BATCH_MS * decision.is_batch,
            model=model,
            is_batch=decision.is_batch,
        )
