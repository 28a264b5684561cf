"""Decisions: which replica takes a request, why, and how it turned out."""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.routing.cost_model import CostEstimates
from gateway.routing.fleet import Replica
from gateway.routing.policies.policy import Candidate
from gateway.telemetry import Finished

HEADER_CANDIDATES = 32
"""Candidates in a header: proxies take headers of some kilobytes only."""
KEPT = 1000
"""Decisions that are remembered."""


@dataclass(slots=True, eq=False)
class Decision:
    """One choice; all times are seconds, all lengths tokens."""

    id: int
    """Of the `Dispatch` that goes with the request."""
    request_id: str
    model: str
    policy: str
    decided_s: float
    """Seconds since the epoch."""
    candidates: Sequence[Candidate]
    costs: Sequence[float]
    index: int
    """Of the chosen candidate."""
    prompt_tokens: float
    output_tokens: float
    ttft_s: float
    """Predicted time to first token, from the engine's door on."""
    estimates: CostEstimates
    """What had been learned of the engines: with the candidates, all that costs come from."""
    has_session: bool
    """The request named a session, whose replica was preferred."""
    adapter: str = ""
    """The adapter of the model that answers."""
    is_batch: bool = False
    """The request may wait for all others."""
    sequences: int = 1
    """What the engine makes of the request: its answers, for each of its prompts."""
    waited_s: float = 0.0
    """How long it was held back in this router until its replica could start it."""
    finished: Finished | None = None
    """How it turned out, once the engine has told."""

    @property
    def replica(self) -> Replica:
        """The chosen one."""
        return self.candidates[self.index].replica

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the chosen replica is thought to hold."""
        return int(self.candidates[self.index].cached_tokens)

    @property
    def new_tokens(self) -> float:
        """Tokens of the prompt that the chosen replica has to compute."""
        return max(0.0, self.prompt_tokens - self.cached_tokens)

    def explanation(self, most: int | None = None) -> dict[str, object]:
        """The decision as JSON has it: the chosen candidate, then the others by their cost.

        `most`: as many of them at most.
        """
        finished = self.finished
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
                    "load_s": round(candidate.load_s, 6),
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
        """The explanation on one line of ASCII, fit for a header."""
        return json.dumps(self.explanation(HEADER_CANDIDATES), separators=(",", ":")).encode(
            "ascii"
        )


class DecisionLog:
    """The last decisions, in which engines' reports find the ones they belong to."""

    def __init__(self, size: int = KEPT) -> None:
        self._size = size
        self.observer: Callable[[Decision], None] | None = None
        """Told of every decision of which is known how it turned out."""
        self._decisions: OrderedDict[int, Decision] = OrderedDict()
        self._under_way: dict[int, Decision] = {}
        self._ended: OrderedDict[int, Decision] = OrderedDict()
        """Those whose answer has ended, of which an engine may still tell."""

    def add(self, decision: Decision) -> None:
        """Remember a decision whose request is sent, and forget the oldest of too many."""
        self._under_way[decision.id] = decision
        self._decisions[decision.id] = decision
        if len(self._decisions) > self._size:
            self._decisions.popitem(last=False)

    def end(self, decision: Decision) -> None:
        """The request is under way no more; its engine tells of that soon, if it does."""
        if self._under_way.pop(decision.id, None) is not None:
            self._ended[decision.id] = decision
            if len(self._ended) > self._size:
                self._ended.popitem(last=False)

    def finish(self, finished: Finished) -> None:
        """Note how a request turned out, if it is one of these."""
        id_ = finished.id
        decision = self._under_way.pop(id_, None) or self._ended.pop(id_, None)
        if decision is not None:
            decision.finished = finished
            if self.observer is not None:
                self.observer(decision)

    def latest(self) -> list[Decision]:
        """All that are remembered, newest first."""
        return list(reversed(self._decisions.values()))
