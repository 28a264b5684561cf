"""Retry policy: the step after a failed attempt, from its failure, the progress and the budget.

Until its client has been sent any of the answer, a request is retried on another replica, within
the retry budget of its client and of the model. A stream that breaks later is resumed on another
replica, where it can be.

A request may itself be what makes replicas fail, and its client may send it at will. So each has
few attempts that bring its client nothing new, and the second same failure blames the request:

- an error that two replicas report, or a connection that two replicas break off, ends it;
- one under which two replicas have died gets no third;
- one that came to a replica just before the replica fell silent goes to no other one. It waits for
  that replica to come back, and is tried there once more: a short halt may have been no fault of
  the request. A stream that had begun before, or a request that the replica had taken in, goes on
  elsewhere, but it, too, survives only one replica that falls silent.

What a replica reports that has just failed other requests is no evidence against this one.

Source: the "query of death" of "Addressing Cascading Failures" in Site Reliability Engineering
(O'Reilly, 2016), and the retry limits of the same chapter.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from gateway.errors.upstream import Reason

FREE = frozenset({Reason.UNREACHABLE, Reason.DRAINING, Reason.STUCK})
"""Reasons of failures after which no engine goes on working for the request."""
REPORTED = frozenset({Reason.ANSWERED_5XX, Reason.ENGINE_ERROR})
"""Reasons where the replica itself says that the request failed."""
BROKEN = frozenset({Reason.BROKE_OFF, Reason.INVALID, Reason.SILENT})
"""Reasons where the answer was cut, if the replica lives on."""


class RetryDecision(Enum):
    """Step that follows a failed attempt."""

    RETRY = auto()
    """Send the request to another replica; its client has been sent nothing."""
    RETURN = auto()
    """Send the request to the same replica once it is back; it may be what has halted it."""
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
    has_silenced: bool = False
    """The request came to the replica just before the replica fell silent."""
    is_expected: bool = False
    """The replica has been failing other requests, so this one need not be the cause."""

    @property
    def is_free(self) -> bool:
        """Whether another attempt costs no retry: no engine still works for this one."""
        return self.has_died or self.reason in FREE

    @property
    def is_reported(self) -> bool:
        """Whether it is evidence against the request that a replica reports an error."""
        return self.reason in REPORTED and not self.is_expected

    @property
    def is_break(self) -> bool:
        """Whether it is evidence against the request that its answer broke off."""
        return self.reason in BROKEN and not (self.has_died or self.is_expected)


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
    breaks: int = 0
    """Answers that have broken off since then, of replicas that live on."""
    errors: int = 0
    """Attempts for which replicas have reported an error."""
    silences: int = 0
    """Replicas that have fallen silent under the request."""
    is_suspect: bool = False
    """One of them did so just as the request came to it."""
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
            breaks=(0 if is_new else self.breaks) + failure.is_break,
            errors=self.errors + failure.is_reported,
            silences=self.silences + (failure.reason is Reason.STUCK),
            is_suspect=self.is_suspect or failure.has_silenced,
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
    max_same: int = 2
    """Other failures of one kind before the request is considered the cause."""

    def next(
        self, failure: Failure, progress: AttemptProgress, *, has_budget: bool
    ) -> RetryDecision:
        """The step after a failure, which `progress` counts already; pure.

        `has_budget`: whether the retry budget pays for another attempt.
        """
        if progress.is_committed or progress.retries >= self.max_retries or self.blames(progress):
            return RetryDecision.GIVE_UP
        if progress.parts:
            can_resume = progress.is_resumable and progress.resumes < self.max_resumes
            return RetryDecision.RESUME if can_resume else RetryDecision.GIVE_UP
        if failure.has_silenced:
            return RetryDecision.RETURN
        return RetryDecision.RETRY if failure.is_free or has_budget else RetryDecision.GIVE_UP

    def blames(self, progress: AttemptProgress) -> bool:
        """Whether the request itself seems to make replicas fail, so that nobody should retry it.

        No replica is to blame for it then.
        """
        p = progress
        return p.deaths >= self.max_deaths or max(p.breaks, p.errors, p.silences) >= self.max_same

    def is_harmful(self, progress: AttemptProgress) -> bool:
        """Whether the request may be what kills or halts engines: no other model should get it."""
        p = progress
        return p.is_suspect or p.deaths >= self.max_deaths or p.silences >= self.max_same

    def is_final(self, progress: AttemptProgress) -> bool:
        """Whether the failure should not be retried by the client: it has been, or must not be."""
        p = progress
        has_failed = bool(p.deaths or p.breaks or p.errors or p.silences)
        return self.blames(p) or (has_failed and p.retries > 0)
