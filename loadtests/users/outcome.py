"""What came of one request."""

from enum import StrEnum

import msgspec


class Fate(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    """429: turned away in order, which is no failure."""
    FAILED = "failed"
    CUT = "cut"
    """Still on its way when its user was ended, with the test or before."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A request's end; times are seconds, and count from when it was due."""

    model: str
    due_s: float
    """Since the epoch; who waits for answers sends at once what is due."""
    late_s: float = 0.0
    """How long after that it was sent."""
    fate: Fate
    reason: str = ""
    """Of a rejection or a failure."""
    e2e_s: float = 0.0
    ttft_s: float | None = None
    itl_s: float | None = None
    """Between one token and the next, on average; none of an answer of one token."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens_per_s(self) -> float:
        """As the user has it: waiting counts."""
        return self.completion_tokens / self.e2e_s if self.e2e_s else 0.0
