"""Retry policy: the step after a failed attempt, from its failure, the progress and the budget.

Until its client has been sent any of the answer, a request is retried on another replica, within
the model's retry budget. A stream that breaks later is resumed on another replica, where it can be.

A request may itself be what makes replicas fail. So each has few attempts that bring its client
nothing new, and one under which two replicas have died gets no third.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from gateway.errors import Reason

FREE = frozenset({Reason.UNREACHABLE, Reason.DRAINING, Reason.STUCK})
"""Reasons of failures after which no engine goes on working for the request."""


class RetryDecision(Enum):
    """Step that follows a failed attempt."""

    RETRY = auto()
    """Send the request to another replica; its client has been sent nothing."""
    RESUME = auto()
    """Have another replica continue the stream."""
    GIVE_UP = auto()
    """Send the client the error, or let another model answer."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Failure of one attempt."""

    reason: Reason
    has_died: bool = False
    """The replica has died under the request."""

    @property
    def is_free(self) -> bool:
        """Whether another attempt costs no retry: no engine still works for this one."""
        return self.has_died or self.reason in FREE


@dataclass(frozen=True, slots=True)
class AttemptProgress:
    """Attempts at one request so far, and what its client has been sent; a value."""

    parts: int = 0
    """Parts of a stream that the client had been sent when the last attempt failed."""
    is_committed: bool = False
    """An answer that is no stream has begun, so it can be neither withdrawn nor resumed."""
    is_resumable: bool = False
    """All that the client has been sent is known, and the client allows resumption."""
    retries: int = 0
    """Further attempts since one brought the client anything new."""
    deaths: int = 0
    """Replicas that have died under the request since then."""
    resumes: int = 0
    """How often the stream has been resumed."""

    def after_failure(
        self, failure: Failure, parts: int, *, is_committed: bool, is_resumable: bool
    ) -> "AttemptProgress":
        """Return the progress after a failure; `parts`: parts that the client has been sent."""
        is_new = parts > self.parts
        return AttemptProgress(
            parts=max(parts, self.parts),
            is_committed=is_committed,
            is_resumable=is_resumable,
            retries=0 if is_new else self.retries,
            deaths=(0 if is_new else self.deaths) + failure.has_died,
            resumes=self.resumes,
        )

    def after_step(self, step: RetryDecision) -> "AttemptProgress":
        """Return the progress once the step has been taken."""
        resumes = self.resumes + (step is RetryDecision.RESUME)
        return replace(self, retries=self.retries + 1, resumes=resumes)


NO_PROGRESS = AttemptProgress()
"""Before the first attempt."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits on the attempts at one request."""

    max_retries: int = 2
    """Attempts beside the first one, and beside each that has brought the client something new."""
    max_resumes: int = 8
    """How often one stream is resumed."""
    max_deaths: int = 2
    """Replicas that may die under one request before it is considered the cause."""

    def next(
        self, failure: Failure, progress: AttemptProgress, *, has_budget: bool
    ) -> RetryDecision:
        """The step after a failure, which `progress` counts already; pure.

        `has_budget`: whether the model's retry budget pays for another attempt.
        """
        if progress.is_committed or progress.retries >= self.max_retries or self.is_final(progress):
            return RetryDecision.GIVE_UP
        if progress.parts:
            can_resume = progress.is_resumable and progress.resumes < self.max_resumes
            return RetryDecision.RESUME if can_resume else RetryDecision.GIVE_UP
        return RetryDecision.RETRY if failure.is_free or has_budget else RetryDecision.GIVE_UP

    def is_final(self, progress: AttemptProgress) -> bool:
        """Whether the request itself seems to kill replicas, so that nobody should retry it."""
        return progress.deaths >= self.max_deaths
