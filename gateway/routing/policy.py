"""Interface of routing policies: a synchronous choice among candidates, with the cost of each."""

import random
from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.kvcache.prefix import Prompt
from gateway.routing.cost_model import CostEstimates
from gateway.routing.fleet import Replica


class RequestProfile(msgspec.Struct, frozen=True):
    """Properties of a request that a policy may use."""

    prompt: Prompt
    prompt_tokens: float
    """Estimated, because only engines have the tokenizer."""
    output_tokens: float
    """Expected length of the answer."""
    session: bytes = b""
    """The client's `x-session-id`; empty if it sent none."""
    adapter: str = ""
    """Adapter that answers; empty if the model itself does."""


class Candidate(msgspec.Struct, frozen=True):
    """A replica that can be chosen, and its state."""

    replica: Replica
    cached_keys: int
    """Number of the prompt's first keys that it holds."""
    cached_tokens: float
    """Tokens of the prompt that it holds, as far as is known."""
    running: int
    """Sequences that have started, and those that this router has just sent."""
    waiting: int
    """Sequences that have not started."""
    pending_tokens: float
    """Prompt tokens that it has to compute before those of this request."""
    free_tokens: float
    """Tokens of its KV cache that are not taken by the prompts of its requests."""
    adapter_load_s: float = 0.0
    """Seconds that loading the request's adapter takes; 0 if it is loaded, or none is wanted."""

    @property
    def requests(self) -> int:
        """Sequences that it has, running and waiting."""
        return self.running + self.waiting


class PolicyChoice(msgspec.Struct, frozen=True):
    """The candidate that a policy chose, and the costs that explain the choice."""

    index: int
    """Index of the chosen candidate."""
    costs: Sequence[float]
    """Cost of each candidate, in the policy's own unit (seconds for `marginal`)."""


class RoutingPolicy(Protocol):
    """Chooses the replica for each request. Synchronous, without effects on anything but itself."""

    name: str

    def __init__(self, rng: random.Random) -> None: ...

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """Choose one of `candidates`, which are not empty."""
