"""Scheduler of one model: chooses the replica for each request, and learns from the replicas.

Each replica's state (`gateway.routing.replica_state`) is put before the routing policy. The choice
is among the replicas in the best health; the policy decides by their caches and their load.
"""

import contextlib
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from gateway.kvcache.prefix import TOKEN_ID_BYTES, Prompt
from gateway.kvcache.prefix_index import PrefixMatch
from gateway.routing.cost_model import CostModel
from gateway.routing.decision import Decision, DecisionLog
from gateway.routing.fleet import ServedModel
from gateway.routing.policy import Candidate, RequestProfile, RoutingPolicy
from gateway.routing.policy_registry import make_policy
from gateway.routing.replica_set import ReplicaSet
from gateway.routing.replica_state import AssignedRequest
from gateway.routing.reservations import Reserved
from gateway.routing.target import Target
from gateway.telemetry.dispatch import Dispatch, Origin
from gateway.telemetry.update import Finished, Update, pack_keys
from gateway.telemetry.usage import Reservation

AGING_WEIGHT = 0.2
"""Seconds of prefill that one second of waiting is worth in the order of waiting requests."""
SEQUENCE_YIELD_S = 0.05
"""Seconds of prefill that each further sequence of a request counts for in that order: small
requests pass large ones."""
MAX_YIELD_S = 10.0
"""The same for all of them: a large request is passed by those of the next 50 s only."""
BATCH_DELAY_MS = 10**12
"""Priority offset of batch requests, in milliseconds: a century of waiting does not outweigh it."""
NO_COPIES: Mapping[str, int] = {}
NO_MATCH = PrefixMatch(keys=0, tokens=0)


class Scheduler:
    """Scheduler of one model; `now` is the time of day in seconds, which priorities are made of.

    `router`: id of this router.
    """

    def __init__(
        self,
        model: ServedModel,
        log: DecisionLog,
        rng: random.Random,
        now: Callable[[], float],
        router: str = "",
    ) -> None:
        self.cost_model = CostModel()
        self.replicas = ReplicaSet(model, now, router)
        self._model = model
        self._log = log
        self._rng = rng
        self._now = now
        self._policy: RoutingPolicy = make_policy(model.options.routing.policy, rng)

    def choose(
        self, target: Target, avoid: Collection[str] = (), *, decided_s: float | None = None
    ) -> Decision:
        """Choose a replica for a request; O(keys + replicas).

        `avoid`: ids of replicas to which others are preferred. `decided_s`: time of the first
        decision on the request, if this is not the first.

        Raises:
            ModelUnavailable: the model has no replica now.
        """
        self._model.check_available()
        request = target.request
        self.replicas.sync()
        profile, candidates = self._policy_input(target, avoid)
        estimates = self.cost_model.estimates
        policy = self._current_policy()
        choice = policy.choose(profile, candidates, estimates)
        chosen = candidates[choice.index]
        new_tokens = max(0.0, profile.prompt_tokens - chosen.cached_tokens)
        return Decision(
            id=self._rng.getrandbits(64) or 1,
            request_id=request.request_id.decode(),
            model=self._model.name,
            policy=policy.name,
            decided_s=self._now() if decided_s is None else decided_s,
            candidates=candidates,
            costs=choice.costs,
            index=choice.index,
            prompt_tokens=profile.prompt_tokens,
            output_tokens=profile.output_tokens,
            ttft_s=chosen.adapter_load_s
            + (chosen.pending_tokens + new_tokens) * estimates.prefill_s
            + estimates.step_s,
            estimates=estimates,
            has_session=bool(request.session),
            adapter=profile.adapter,
            is_batch=request.is_batch,
            sequences=request.head.sequences,
        )

    @contextlib.contextmanager
    def sending(
        self,
        decision: Decision,
        target: Target,
        attempt: int = 1,
        reserved: Reserved | None = None,
        *,
        is_counted: bool = False,
    ) -> Iterator[Dispatch]:
        """Count a request at its replica while the replica answers it.

        Yields the dispatch that goes to the engine with the request. `attempt`: its number, from 1.
        `reserved`: what is set aside for it of its project's limits, if it has any. `is_counted`:
        all routers have counted it as a request.
        """
        request, replica = _assigned(decision, target), decision.replica.id
        self._log.record_sent(decision)
        if state := self.replicas.get(replica):
            state.record_sent(request)
        origin = self._origin(decision, target, attempt, reserved, is_counted=is_counted)
        if origin is not None:
            reservation = Reservation.of(
                decision.id, origin, target.name, is_batch=decision.is_batch
            )
            self.replicas.reservations.record_sent(replica, reservation)
        is_answered = False
        try:
            yield self._dispatch(request, target, origin)
            is_answered = True
        finally:
            self._log.record_ended(decision)
            if origin is not None:
                self.replicas.reservations.record_ended(replica, decision.id)
            if state := self.replicas.get(replica):
                state.record_ended(request, is_answered=is_answered)
                self.replicas.publish(replica)

    def is_reported(self, decision: Decision) -> bool:
        """Whether the engine has told all routers of a request that it is being sent."""
        return self.replicas.reservations.is_reported(decision.replica.id, decision.id)

    def record_refused(self, decision: Decision) -> None:
        """Record that the chosen replica's engine refuses the request."""
        if state := self.replicas.get(decision.replica.id):
            state.record_refused(decision.id)

    def has_room(self, decision: Decision, *, is_over_share: bool = False) -> bool:
        """Whether the chosen replica can start the request now.

        `is_over_share`: its tenant is above its fair share, and leaves something free for others.
        """
        state = self.replicas.get(decision.replica.id)
        return state is None or state.has_room(
            decision.kv_demand_tokens,
            sequences=decision.sequences,
            is_batch=decision.is_batch,
            is_over_share=is_over_share,
        )

    def has_slot(self, decision: Decision, *, is_over_share: bool = False) -> bool:
        """Whether the chosen replica could start a small request in place of this one."""
        state = self.replicas.get(decision.replica.id)
        return state is None or state.has_room(
            0.0, is_batch=decision.is_batch, is_over_share=is_over_share
        )

    def priority_s(self, decision: Decision) -> float:
        """Return the position of a waiting request among others: the least starts first."""
        prefill_s = decision.prefill_tokens * self.cost_model.estimates.prefill_s
        if decision.sequences > 1:
            prefill_s += min(MAX_YIELD_S, SEQUENCE_YIELD_S * (decision.sequences - 1))
        return prefill_s + AGING_WEIGHT * decision.decided_s

    def cost_s(self, decision: Decision) -> float:
        """Seconds of its replica's time that a request is expected to take."""
        return self.cost_model.cost_s(decision.prefill_tokens, decision.answer_tokens)

    def hold(self, decision: Decision, target: Target) -> None:
        """Count a request as waiting in this router for its replica."""
        if state := self.replicas.get(decision.replica.id):
            state.hold(_assigned(decision, target))

    def release(self, decision: Decision) -> None:
        """Count a waiting request as on its way to its replica, until it is discarded."""
        if state := self.replicas.get(decision.replica.id):
            state.release(decision.id)

    def discard(self, decision: Decision) -> None:
        """Stop counting a waiting or released request: it is sent now, or never."""
        if state := self.replicas.get(decision.replica.id):
            state.discard(decision.id)

    def record_update(self, replica: str, update: Update) -> None:
        """Record a frame of a replica's telemetry, and learn from the requests it has finished.

        Raises:
            ValueError: the frame is malformed.
        """
        if self.record_state(replica, update):
            self.record_finished(update.finished)

    def record_state(self, replica: str, update: Update) -> bool:
        """Record what a frame of a replica's telemetry says of its state; False: it has gone.

        Raises:
            ValueError: the frame is malformed.
        """
        self.replicas.sync()
        if (state := self.replicas.get(replica)) is None:
            return False
        state.record_update(update)
        if update.held is not None:
            self.replicas.held_elsewhere.record(
                replica, update.held, is_snapshot=update.is_snapshot
            )
        self.replicas.reservations.record_update(replica, update)
        self.replicas.publish(replica)
        return True

    def record_finished(self, finished: Iterable[Finished]) -> None:
        """Learn from requests that a replica has finished."""
        for each in finished:
            self._log.record_finished(each)
            self.cost_model.learn(each)

    def record_telemetry_lost(self, replica: str) -> None:
        """Record that a replica's telemetry has broken off."""
        state = self.replicas.get(replica)
        if state is not None and state.health.has_telemetry:
            state.lose_telemetry()
            self.replicas.held_elsewhere.drop_replica(replica)
            self.replicas.publish(replica)

    @property
    def in_flight(self) -> int:
        """Number of this router's requests that replicas are answering."""
        return sum(state.requests_sent for state in self.replicas.all())

    def _current_policy(self) -> RoutingPolicy:
        """Return the policy that the model's entry names now."""
        name = self._model.options.routing.policy
        if self._policy.name != name:
            self._policy = make_policy(name, self._rng)
        return self._policy

    def _policy_input(
        self, target: Target, avoid: Collection[str]
    ) -> tuple[RequestProfile, Sequence[Candidate]]:
        """Return the input of the policy: the request's profile and the candidates."""
        prompt, request, adapter = target.prompt, target.request, target.adapter
        estimates = self.cost_model.estimates
        tokens_per_byte = 1 / TOKEN_ID_BYTES if prompt.is_token_ids else estimates.tokens_per_byte
        matches = self.replicas.prefix_index.match(prompt.keys)
        profile = RequestProfile(
            prompt,
            prompt_tokens(prompt, matches, tokens_per_byte),
            self.cost_model.output_tokens(request.head.max_tokens),
            request.session,
            adapter,
        )
        copies = self.replicas.loaded_copies() if adapter else NO_COPIES
        return profile, [
            state.candidate(
                profile, matches.get(state.replica.id, NO_MATCH), tokens_per_byte, copies
            )
            for state in self.replicas.preferred(avoid)
        ]

    def _origin(
        self,
        decision: Decision,
        target: Target,
        attempt: int,
        reserved: Reserved | None,
        *,
        is_counted: bool,
    ) -> Origin | None:
        """Whose request it is, if it is anybody's."""
        request, identity = target.request, target.request.identity
        if identity.is_open:
            return None
        if reserved is None:
            reserved = Reserved(round(decision.prefill_tokens + decision.answer_tokens), 0)
        return Origin(
            request_id=decision.request_id,
            attempt=attempt,
            project=identity.project.id,
            key=identity.key,
            user=identity.user,
            tier=request.tier,
            endpoint=request.path,
            is_copy=request.is_copy,
            reserved_tokens=reserved.tokens,
            reserved_nano=reserved.nano,
            reserved_s=0.0 if request.is_copy else self.cost_s(decision),
            model=target.name,
            cache_scope=identity.cache_scope,
            weight=request.weight,
            is_counted=is_counted,
        )

    def _dispatch(
        self, request: AssignedRequest, target: Target, origin: Origin | None
    ) -> Dispatch:
        prompt, decision = request.prompt, request.decision
        return Dispatch(
            id=decision.id,
            keys=pack_keys(prompt.keys),
            key_bytes=prompt.key_bytes,
            prompt_bytes=prompt.size,
            seed=prompt.seed,
            reply_start=prompt.reply_start,
            is_token_ids=prompt.is_token_ids,
            has_media=prompt.has_media,
            priority=round(1000 * self.priority_s(decision)) + BATCH_DELAY_MS * decision.is_batch,
            model=target.renamed,
            is_batch=decision.is_batch,
            tenant=target.request.tenant,
            origin=origin,
        )


def _assigned(decision: Decision, target: Target) -> AssignedRequest:
    return AssignedRequest(decision, target.prompt, decision.kv_demand_tokens)


def prompt_tokens(
    prompt: Prompt, matches: Mapping[str, PrefixMatch], tokens_per_byte: float
) -> float:
    """Return the tokens that engines counted of its beginning, plus an estimate of the rest."""
    if not matches:
        return prompt.size * tokens_per_byte
    longest = max(matches.values(), key=lambda match: match.keys)
    counted_bytes = longest.keys * prompt.key_bytes if longest.tokens else 0
    return longest.tokens + (prompt.size - counted_bytes) * tokens_per_byte
