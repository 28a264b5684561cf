"""Chooses a model's replicas: what is known of each, put before the policy, and kept up to date.

What a replica's load is comes from its telemetry; to this are added the requests of this router
that it has not confirmed yet. A replica without telemetry is judged by this router's own books: the
requests it has there, and a ledger of what they must have left in its cache.
"""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.routing.decision import Decision, DecisionLog
from gateway.routing.fleet import Model, Replica
from gateway.routing.holdings import Holdings, Match, packed, unpacked, unpacked_tokens
from gateway.routing.latency import Latency
from gateway.routing.ledger import Ledger
from gateway.routing.policies import make_policy
from gateway.routing.policy import Candidate, Policy, Request
from gateway.routing.prefix import TOKEN_ID_BYTES, Prompt
from gateway.telemetry import Dispatch, Load, Update

AGEING = 0.2
"""Seconds of prefill that a waiting request is worth for each second it has waited."""
CONFIRMATION_S = 0.5
"""How long after its answer a request's keys are expected: telemetry takes a tenth of that."""
IDLE = Load(running=0, waiting=0, pending_tokens=0, free_tokens=0)
NOTHING = Match(keys=0, tokens=0)

Matches = Mapping[str, Match]


@dataclass(slots=True, eq=False)
class Sent:
    """A request of this router's on its way to, or in, an engine."""

    decision: Decision
    prompt: Prompt
    new_tokens: float
    is_expected: bool = True
    """Its keys are expected at the replica and not confirmed."""
    is_answered: bool = False


@dataclass(slots=True, eq=False)
class _Desk:
    """What this router knows of one replica."""

    replica: Replica
    load: Load = IDLE
    is_followed: bool = False
    """Its telemetry arrives."""
    is_draining: bool = False
    sent: dict[int, Sent] = field(default_factory=dict)
    """This router's requests there, by the ids of their dispatches."""
    unconfirmed: dict[int, Sent] = field(default_factory=dict)
    """Those that its telemetry has not accounted for."""
    ended: dict[int, tuple[float, Sent]] = field(default_factory=dict)
    """Those answered before its telemetry spoke of them, and until when it may."""
    books: Ledger | None = None
    """Our own idea of its cache, while there is no telemetry."""


class Dispatcher:
    """One model's. `now` is the time of day in seconds: requests' priorities are made from it."""

    def __init__(
        self, model: Model, log: DecisionLog, rng: random.Random, now: Callable[[], float]
    ) -> None:
        self.latency = Latency()
        self.holdings = Holdings()
        self._model = model
        self._log = log
        self._rng = rng
        self._now = now
        self._policy: Policy = make_policy(model.policy, rng)
        self._desks: dict[str, _Desk] = {}

    def choose(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = None,
        session: bytes = b"",
        request_id: str = "",
    ) -> Decision:
        """The replica for a request of a model that has replicas; O(keys + replicas)."""
        self.sync()
        if self._policy.name != self._model.policy:
            self._policy = make_policy(self._model.policy, self._rng)
        figures = self.latency.figures
        matches = self.holdings.match(prompt.keys)
        request = Request(
            prompt,
            self._prompt_tokens(prompt, matches),
            self.latency.output_tokens(max_tokens),
            session,
        )
        candidates = self._candidates(prompt, request, matches)
        choice = self._policy.choose(request, candidates, figures)
        chosen = candidates[choice.index]
        new_tokens = max(0.0, request.prompt_tokens - chosen.cached_tokens)
        return Decision(
            id=self._rng.getrandbits(64) or 1,
            request_id=request_id,
            model=self._model.name,
            policy=self._policy.name,
            decided_s=self._now(),
            candidates=candidates,
            costs=choice.costs,
            index=choice.index,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            ttft_s=(chosen.pending_tokens + new_tokens) * figures.prefill_s + figures.step_s,
            figures=figures,
            has_session=bool(session),
        )

    @contextlib.contextmanager
    def sending(self, decision: Decision, prompt: Prompt) -> Iterator[Dispatch]:
        """Count a request at its replica while it is being answered there.

        Gives what has to go with it to the engine.
        """
        new_tokens = max(0.0, decision.prompt_tokens - decision.cached_tokens)
        sent = Sent(decision, prompt, new_tokens)
        self._log.add(decision)
        self._send(sent)
        try:
            yield self._dispatch(sent)
            sent.is_answered = True
        finally:
            self._end(sent)

    def hear(self, replica: str, update: Update) -> None:
        """Take a frame of a replica's telemetry into account.

        Raises:
            ValueError: it cannot be understood.
        """
        self.sync()
        desk = self._desks.get(replica)
        if desk is None:
            return
        keys, tokens = unpacked(update.added), unpacked_tokens(update.added_tokens)
        if len(keys) != len(tokens):
            raise ValueError("keys without tokens")
        if update.is_snapshot:
            desk.books = None
            desk.is_followed = True
            desk.unconfirmed.update(desk.sent)
            self.holdings.replace(replica, keys, tokens)
        else:
            self.holdings.add(replica, keys, tokens)
            self.holdings.drop(replica, unpacked(update.dropped))
        desk.is_draining = update.is_draining
        for id_ in update.accepted:
            self._confirm(desk, id_)
        for finished in update.finished:
            self._confirm(desk, finished.id)
            self._log.finish(finished)
            self.latency.learn(finished)
        if update.load is not None:
            desk.load = update.load
        self._let_go(desk)

    def lose(self, replica: str) -> None:
        """A replica's telemetry has broken off: go on with our own books."""
        desk = self._desks.get(replica)
        if desk is not None and desk.is_followed:
            desk.is_followed = False
            desk.load = IDLE
            desk.unconfirmed.update(desk.sent)
            self.holdings.replace(replica, (), ())
            desk.books = Ledger(desk.replica.metadata.facts.kv_tokens)

    def sync(self) -> None:
        """Follow the model's replicas as they come and go."""
        replicas = self._model.replicas
        if replicas.keys() == self._desks.keys():
            return
        for name in self._desks.keys() - replicas.keys():
            self.holdings.leave(name)
            del self._desks[name]
        for name, replica in replicas.items():
            if name not in self._desks:
                self.holdings.join(name)
                books = Ledger(replica.metadata.facts.kv_tokens)
                self._desks[name] = _Desk(replica, books=books)

    def _candidates(self, prompt: Prompt, request: Request, matches: Matches) -> list[Candidate]:
        desks = [desk for desk in self._desks.values() if not desk.is_draining]
        now_s = self._now()
        reachable = [desk for desk in desks if desk.replica.shunned_until_s <= now_s]
        return [
            self._candidate(desk, prompt, request, matches.get(desk.replica.id, NOTHING))
            for desk in reachable or desks or self._desks.values()
        ]

    def _candidate(self, desk: _Desk, prompt: Prompt, request: Request, match: Match) -> Candidate:
        load, unconfirmed = desk.load, desk.unconfirmed
        pending: float = load.pending_tokens
        if unconfirmed:
            pending += sum([sent.new_tokens for sent in unconfirmed.values()])
        facts = desk.replica.metadata.facts
        cached = 0.0
        if match.keys and facts.block_size:
            # The last token of a prompt is always computed, and engines cache whole blocks.
            known = match.tokens or match.keys * prompt.key_bytes * self._tokens_per_byte(prompt)
            most = min(known, request.prompt_tokens - 1)
            cached = max(0.0, most // facts.block_size * facts.block_size)
        return Candidate(
            replica=desk.replica,
            cached_keys=match.keys,
            cached_tokens=cached,
            running=load.running + len(unconfirmed),
            waiting=load.waiting,
            pending_tokens=pending,
            free_tokens=load.free_tokens,
        )

    def _prompt_tokens(self, prompt: Prompt, matches: Matches) -> float:
        """What engines have counted of the beginning, and an estimate of the rest."""
        if not matches:
            return prompt.size * self._tokens_per_byte(prompt)
        longest = max(matches.values(), key=lambda match: match.keys)
        known_bytes = longest.keys * prompt.key_bytes if longest.tokens else 0
        rest = (prompt.size - known_bytes) * self._tokens_per_byte(prompt)
        return longest.tokens + rest

    def _tokens_per_byte(self, prompt: Prompt) -> float:
        return 1 / TOKEN_ID_BYTES if prompt.is_token_ids else self.latency.figures.tokens_per_byte

    def _send(self, sent: Sent) -> None:
        name = sent.decision.replica.id
        desk = self._desks.get(name)
        if desk is None:
            return
        self.holdings.expect(name, sent.prompt.keys)
        desk.sent[sent.decision.id] = desk.unconfirmed[sent.decision.id] = sent

    def _confirm(self, desk: _Desk, id_: int) -> None:
        sent = desk.unconfirmed.pop(id_, None) or desk.ended.pop(id_, (0.0, None))[1]
        if sent is not None:
            self._expect_no_more(sent)

    def _expect_no_more(self, sent: Sent) -> None:
        if sent.is_expected:
            sent.is_expected = False
            self.holdings.expect_no_more(sent.decision.replica.id, sent.prompt.keys)

    def _end(self, sent: Sent) -> None:
        id_ = sent.decision.id
        desk = self._desks.get(sent.decision.replica.id)
        if desk is None:
            return
        self._let_go(desk)
        desk.sent.pop(id_, None)
        is_unconfirmed = desk.unconfirmed.pop(id_, None) is not None
        if is_unconfirmed and desk.is_followed and sent.is_answered:
            desk.ended[id_] = (self._now() + CONFIRMATION_S, sent)
        else:
            self._expect_no_more(sent)
        if desk.books is not None and sent.is_answered:
            self._enter(desk, desk.books, sent)

    def _let_go(self, desk: _Desk) -> None:
        """Expect nothing more of requests that telemetry should have spoken of by now."""
        now_s = self._now()
        overdue = [id_ for id_, (until_s, _) in desk.ended.items() if until_s <= now_s]
        for id_ in overdue:
            self._expect_no_more(desk.ended.pop(id_)[1])

    def _enter(self, desk: _Desk, books: Ledger, sent: Sent) -> None:
        """Note in our own books what an answered request has left in a replica's cache."""
        books.end(books.begin(sent.prompt, round(sent.decision.prompt_tokens)))
        added, dropped = books.take_changes()
        self.holdings.add(desk.replica.id, list(added), list(added.values()))
        self.holdings.drop(desk.replica.id, dropped)

    def _dispatch(self, sent: Sent) -> Dispatch:
        prompt, figures = sent.prompt, self.latency.figures
        due_s = sent.new_tokens * figures.prefill_s + AGEING * sent.decision.decided_s
        return Dispatch(
            id=sent.decision.id,
            keys=packed(prompt.keys),
            key_bytes=prompt.key_bytes,
            prompt_bytes=prompt.size,
            seed=prompt.seed,
            reply_start=prompt.reply_start,
            is_token_ids=prompt.is_token_ids,
            has_media=prompt.has_media,
            priority=round(1000 * due_s),
        )
