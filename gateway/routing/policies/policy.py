"""What a routing policy is: a pure choice among candidates, which can explain itself."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.kvcache.prefix import Prompt
from gateway.routing.cost_model import CostEstimates
from gateway.routing.fleet import Replica


class RequestProfile(msgspec.Struct, frozen=True):
    """What a policy knows of a request."""

    prompt: Prompt
    prompt_tokens: float
    """Estimated: only an engine has the tokenizer."""
    output_tokens: float
    """Expected."""
    session: bytes = b""
    """The client's `x-session-id`; empty without one."""
    adapter: str = ""
    """Of the model's adapters, the one that answers; empty where the model itself does."""


class Candidate(msgspec.Struct, frozen=True):
    """A replica that may take a request, and how it stands."""

    replica: Replica
    cached_keys: int
    """Of the prompt's first keys, held here."""
    cached_tokens: float
    """Of the prompt, as far as is known."""
    running: int
    """Sequences that have started, and those just sent there by this router."""
    waiting: int
    """Sequences that have not."""
    pending_tokens: float
    """Prompt tokens still to be computed before this request's."""
    free_tokens: float
    """Tokens of the KV cache beside the prompts of the requests it has."""
    load_s: float = 0.0
    """What loading the request's adapter there costs; 0 where it is loaded, or there is none."""

    @property
    def requests(self) -> int:
        """All that it has taken."""
        return self.running + self.waiting


class PolicyChoice(msgspec.Struct, frozen=True):
    """Whom a policy chose, and why."""

    index: int
    """Of the candidate."""
    costs: Sequence[float]
    """What each candidate was found to cost, in the policy's own unit (seconds for `marginal`)."""


class RoutingPolicy(Protocol):
    """Which replica takes a request. Synchronous; touches nothing but itself."""

    name: str

    def choose(
        self, request: RequestProfile, candidates: Sequence[Candidate], estimates: CostEstimates
    ) -> PolicyChoice:
        """Choose one of `candidates`, which are not empty."""
