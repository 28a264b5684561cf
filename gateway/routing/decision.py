"""Routing decisions: which replica a request was sent to, why, and how it turned out."""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
from msgspec.structs import force_setattr

from gateway.routing.cost_model import CostEstimates
from gateway.routing.fleet import Replica
from gateway.routing.policy import Candidate
from gateway.telemetry.update import Finished

HEADER_CANDIDATES = 32
"""Candidates listed in a header: proxies limit headers to a few kilobytes."""
LOG_SIZE = 1000
"""Decisions that are kept."""
REFUSAL_FACTOR = 2.0
"""Estimated prompt length, in multiples of the engine's limit, that is surely rejected."""

DecisionListener = Callable[["Decision", Finished], None]


class Decision(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Choice of a replica for one request; times are seconds, lengths are tokens."""

    id: int
    """Id of the request's `Dispatch`."""
    request_id: str
    model: str
    policy: str
    decided_s: float
    """Seconds since the epoch."""
    candidates: Sequence[Candidate]
    costs: Sequence[float]
    index: int
    """Index of the chosen candidate."""
    prompt_tokens: float
    output_tokens: float
    ttft_s: float
    """Predicted time to first token, counted from the request's arrival at the engine."""
    estimates: CostEstimates
    """Estimates at the time of the decision; with the candidates, they explain all costs."""
    has_session: bool
    """Whether the request named a session, whose replica was preferred."""
    adapter: str = ""
    """Adapter that answers; empty if the model itself does."""
    is_batch: bool = False
    """Whether the request may wait for all interactive ones."""
    sequences: int = 1
    """Sequences that the engine makes of the request: its answers, for each of its prompts."""
    waited_s: float = 0.0
    """How long the request waited in this router until its replica could start it."""
    replica: Replica = cast("Replica", None)
    """The chosen replica; this and what follows is made of the rest (`__post_init__`)."""
    cached_tokens: int = 0
    """Tokens of the prompt that the chosen replica is believed to hold."""
    prefill_tokens: float = 0.0
    """New tokens of the prompt, which the chosen replica has to compute: an estimate.

    No more than the engine can take.
    """
    kv_demand_tokens: float = 0.0
    """New tokens of the prompt that need KV cache: none if the engine will surely reject it."""
    answer_tokens: float = 0.0
    """Expected tokens of all its answers."""

    def __post_init__(self) -> None:
        """Compute once what is asked for again and again."""
        chosen = self.candidates[self.index]
        replica, cached_tokens = chosen.replica, int(chosen.cached_tokens)
        prompt_tokens, facts = self.prompt_tokens, replica.metadata.facts
        tokens = max(0.0, prompt_tokens - cached_tokens)
        if tokens > facts.max_model_len > 0:
            tokens = facts.max_model_len
        if tokens > facts.kv_tokens > 0:
            tokens = facts.kv_tokens
        is_refused = prompt_tokens > REFUSAL_FACTOR * facts.max_model_len > 0
        force_setattr(self, "replica", replica)
        force_setattr(self, "cached_tokens", cached_tokens)
        force_setattr(self, "prefill_tokens", tokens)
        force_setattr(self, "kv_demand_tokens", 0.0 if is_refused else tokens)
        force_setattr(self, "answer_tokens", self.sequences * self.output_tokens)

    def after_waiting(self, waited_s: float) -> "Decision":
        """Return the same decision for a request that has waited so long in this router."""
        return msgspec.structs.replace(self, waited_s=waited_s)

    def explanation(
        self, most: int | None = None, finished: Finished | None = None
    ) -> dict[str, object]:
        """Return the decision as JSON shows it: the chosen candidate first, then by cost.

        `most`: maximum number of candidates listed. `finished`: the engine's report, if there is
        one.
        """
        others = sorted(set(range(len(self.costs))) - {self.index}, key=self.costs.__getitem__)
        ranked = [(self.costs[i], self.candidates[i]) for i in (self.index, *others)]
        return {
            "request_id": self.request_id,
            "model": self.model,
            "adapter": self.adapter,
            "policy": self.policy,
            "decided_s": round(self.decided_s, 3),
            "replica": self.replica.id,
            "prompt_tokens": round(self.prompt_tokens),
            "output_tokens": round(self.output_tokens),
            "cached_tokens": self.cached_tokens,
            "ttft_s": round(self.ttft_s, 6),
            "prefill_s": round(self.estimates.prefill_s, 9),
            "sequence_s": round(self.estimates.sequence_s, 9),
            "has_session": self.has_session,
            "is_batch": self.is_batch,
            "waited_s": round(self.waited_s, 6),
            "candidate_count": len(self.candidates),
            "candidates": [
                {
                    "replica": candidate.replica.id,
                    "cost": round(cost, 6),
                    "cached_tokens": int(candidate.cached_tokens),
                    "running": candidate.running,
                    "waiting": candidate.waiting,
                    "pending_tokens": round(candidate.pending_tokens),
                    "load_s": round(candidate.adapter_load_s, 6),
                }
                for cost, candidate in ranked[:most]
            ],
            "actual": finished
            and {
                "prompt_tokens": finished.prompt_tokens,
                "cached_tokens": finished.cached_tokens,
                "completion_tokens": finished.completion_tokens,
                "ttft_s": round(finished.queue_s + finished.prefill_s, 6),
                "is_aborted": finished.is_aborted,
            },
        }

    def encode(self) -> bytes:
        """Return the explanation on one line of ASCII, as the value of a header."""
        return json.dumps(self.explanation(HEADER_CANDIDATES), separators=(",", ":")).encode(
            "ascii"
        )


class LoggedDecision(msgspec.Struct, frozen=True):
    """Decision in the log, with the engine's report once there is one."""

    decision: Decision
    finished: Finished | None = None

    def explanation(self) -> dict[str, object]:
        """Return the decision and its outcome as JSON shows them."""
        return self.decision.explanation(finished=self.finished)


class DecisionLog:
    """Latest decisions, matched with the engines' reports on their requests."""

    def __init__(self, size: int = LOG_SIZE, observer: DecisionListener | None = None) -> None:
        """`observer`: called with each decision, and its engine's report, once that has come."""
        self._size = size
        self._observer = observer
        self._logged: OrderedDict[int, LoggedDecision] = OrderedDict()
        self._in_flight: dict[int, Decision] = {}
        self._ended: OrderedDict[int, Decision] = OrderedDict()
        """Decisions whose answer has ended, on which an engine may still report."""

    def record_sent(self, decision: Decision) -> None:
        """Keep a decision whose request is sent; the oldest of too many is dropped."""
        self._in_flight[decision.id] = decision
        self._logged[decision.id] = LoggedDecision(decision)
        if len(self._logged) > self._size:
            self._logged.popitem(last=False)

    def record_ended(self, decision: Decision) -> None:
        """Record the end of a request's answer; its engine may still report on it."""
        if self._in_flight.pop(decision.id, None) is not None:
            self._ended[decision.id] = decision
            if len(self._ended) > self._size:
                self._ended.popitem(last=False)

    def record_finished(self, finished: Finished) -> None:
        """Add an engine's report to the decision that it belongs to, if that is one of these."""
        id_ = finished.id
        decision = self._in_flight.pop(id_, None) or self._ended.pop(id_, None)
        if decision is None:
            return
        if id_ in self._logged:
            self._logged[id_] = LoggedDecision(decision, finished)
        if self._observer is not None:
            self._observer(decision, finished)

    def latest(self) -> list[LoggedDecision]:
        """Return all decisions that are kept, the newest first."""
        return list(reversed(self._logged.values()))
