"""The retry policy: what follows each kind of failure."""

import pytest

from gateway.errors.upstream import Reason
from gateway.serving.retry_policy import (
    FREE,
    NO_PROGRESS,
    AttemptProgress,
    Failure,
    RetryDecision,
    RetryPolicy,
)

POLICY = RetryPolicy(max_retries=2, max_resumes=3)
COSTLY = Failure(Reason.ANSWERED_5XX)
DIED = Failure(Reason.BROKE_OFF, has_died=True)
CUT = Failure(Reason.BROKE_OFF)
SILENT = Failure(Reason.STUCK)
SUSPECT = Failure(Reason.STUCK, has_silenced=True)
RETRY, RESUME, GIVE_UP = RetryDecision.RETRY, RetryDecision.RESUME, RetryDecision.GIVE_UP
RETURN = RetryDecision.RETURN


@pytest.mark.parametrize(
    ("failure", "progress", "has_budget", "step"),
    [
        # before the client has been sent anything: within retries and budget
        (COSTLY, AttemptProgress(), True, RETRY),
        (COSTLY, AttemptProgress(), False, GIVE_UP),
        (COSTLY, AttemptProgress(retries=1), True, RETRY),
        (COSTLY, AttemptProgress(retries=2), True, GIVE_UP),
        # no engine works on for these: they cost no budget
        (Failure(Reason.UNREACHABLE), AttemptProgress(), False, RETRY),
        (Failure(Reason.DRAINING), AttemptProgress(), False, RETRY),
        (Failure(Reason.STUCK), AttemptProgress(retries=1), False, RETRY),
        (Failure(Reason.STUCK), AttemptProgress(retries=2), False, GIVE_UP),
        (DIED, AttemptProgress(deaths=1), False, RETRY),
        # a request under which replicas die gets no third
        (DIED, AttemptProgress(deaths=2), True, GIVE_UP),
        (DIED, AttemptProgress(parts=5, is_resumable=True, deaths=2), True, GIVE_UP),
        # the second failure of a kind blames the request, whatever is left of retries and budget
        (COSTLY, AttemptProgress(retries=1, errors=2), True, GIVE_UP),
        (COSTLY, AttemptProgress(parts=5, is_resumable=True, errors=2), True, GIVE_UP),
        (CUT, AttemptProgress(retries=1, breaks=2), True, GIVE_UP),
        (CUT, AttemptProgress(retries=1, breaks=1, errors=1), True, RETRY),
        (SILENT, AttemptProgress(retries=1, silences=2), True, GIVE_UP),
        (SILENT, AttemptProgress(parts=5, is_resumable=True, silences=2), True, GIVE_UP),
        # what may have halted its replica goes to no other one
        (SUSPECT, AttemptProgress(silences=1, is_suspect=True), False, RETURN),
        (SUSPECT, AttemptProgress(silences=2, is_suspect=True), True, GIVE_UP),
        # an answer that is no stream can be neither taken back nor carried on
        (COSTLY, AttemptProgress(is_committed=True), True, GIVE_UP),
        (DIED, AttemptProgress(is_committed=True), True, GIVE_UP),
        # a stream that has begun is resumed, whatever the budget, where it may be
        (COSTLY, AttemptProgress(parts=5, is_resumable=True), False, RESUME),
        (DIED, AttemptProgress(parts=5, is_resumable=True, retries=1), False, RESUME),
        (DIED, AttemptProgress(parts=5, is_resumable=True, retries=2), True, GIVE_UP),
        (DIED, AttemptProgress(parts=5, is_resumable=True, resumes=2), True, RESUME),
        (DIED, AttemptProgress(parts=5, is_resumable=True, resumes=3), True, GIVE_UP),
        (COSTLY, AttemptProgress(parts=5), True, GIVE_UP),
    ],
)
def test_the_next_step_follows_from_failure_progress_and_budget(
    failure: Failure, progress: AttemptProgress, has_budget: bool, step: RetryDecision
) -> None:
    """One row for each rule."""
    assert POLICY.next(failure, progress, has_budget=has_budget) is step


def test_only_failures_after_which_an_engine_works_on_cost_a_retry() -> None:
    """All others, and deaths, are free."""
    assert {reason for reason in Reason if Failure(reason).is_free} == FREE
    assert all(Failure(reason, has_died=True).is_free for reason in Reason)


def test_progress_starts_retries_and_deaths_anew() -> None:
    """But not the number of resumes and of errors, which bound the whole stream."""

    def failed(progress: AttemptProgress, failure: Failure, parts: int) -> AttemptProgress:
        return progress.after_failure(failure, parts, is_committed=False, is_resumable=True)

    first = failed(NO_PROGRESS, DIED, 3).after_step(RESUME)
    without_news = failed(first, DIED, 3)
    with_news = failed(without_news, COSTLY, 4)

    assert first == AttemptProgress(parts=3, is_resumable=True, retries=1, deaths=1, resumes=1)
    assert without_news == AttemptProgress(
        parts=3, is_resumable=True, retries=1, deaths=2, resumes=1
    )
    assert with_news == AttemptProgress(
        parts=4, is_resumable=True, retries=0, deaths=0, errors=1, resumes=1
    )


@pytest.mark.parametrize(
    ("progress", "is_blamed", "is_final", "is_harmful"),
    [
        (AttemptProgress(deaths=1), False, False, False),
        (AttemptProgress(deaths=1, retries=1), False, True, False),
        (AttemptProgress(deaths=2), True, True, True),
        (AttemptProgress(errors=1), False, False, False),
        (AttemptProgress(errors=2, retries=1), True, True, False),
        (AttemptProgress(breaks=2, retries=1), True, True, False),
        (AttemptProgress(silences=1, retries=1), False, True, False),
        (AttemptProgress(silences=1, is_suspect=True), False, False, True),
        (AttemptProgress(silences=2), True, True, True),
        (AttemptProgress(retries=2), False, False, False),
    ],
)
def test_a_request_is_judged_by_its_failures(
    progress: AttemptProgress, is_blamed: bool, is_final: bool, is_harmful: bool
) -> None:
    """Whether it is blamed, should not be sent again, and must not go to another model."""
    assert POLICY.blames(progress) is is_blamed
    assert POLICY.is_final(progress) is is_final
    assert POLICY.is_harmful(progress) is is_harmful


def test_a_replica_that_fails_others_is_no_evidence_against_a_request() -> None:
    """Two such replicas, or one and another, do not blame it."""
    progress = NO_PROGRESS
    for reason in (Reason.ANSWERED_5XX, Reason.ENGINE_ERROR, Reason.BROKE_OFF, Reason.INVALID):
        failure = Failure(reason, is_expected=True)
        progress = progress.after_failure(failure, 0, is_committed=False, is_resumable=False)
    assert not POLICY.blames(progress)
