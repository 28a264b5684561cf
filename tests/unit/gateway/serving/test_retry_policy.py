"""The retry policy: what follows each kind of failure."""

import pytest

from gateway.errors import Reason
from gateway.serving.retry_policy import (
    FREE,
    NO_PROGRESS,
    AttemptProgress,
    Failure,
    RetryDecision,
    RetryPolicy,
)

POLICY = RetryPolicy(max_retries=2, max_resumes=3, max_deaths=2)
COSTLY = Failure(Reason.ANSWERED_5XX)
DIED = Failure(Reason.BROKE_OFF, has_died=True)
RETRY, RESUME, GIVE_UP = RetryDecision.RETRY, RetryDecision.RESUME, RetryDecision.GIVE_UP


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
    """But not the number of resumes, which bounds the whole stream."""

    def failed(progress: AttemptProgress, failure: Failure, parts: int) -> AttemptProgress:
        return progress.after_failure(failure, parts, is_committed=False, is_resumable=True)

    first = failed(NO_PROGRESS, DIED, 3).after_step(RESUME)
    without_news = failed(first, DIED, 3)
    with_news = failed(without_news, COSTLY, 4)

    assert first == AttemptProgress(parts=3, is_resumable=True, retries=1, deaths=1, resumes=1)
    assert without_news == AttemptProgress(
        parts=3, is_resumable=True, retries=1, deaths=2, resumes=1
    )
    assert with_news == AttemptProgress(parts=4, is_resumable=True, retries=0, deaths=0, resumes=1)


@pytest.mark.parametrize(("deaths", "is_final"), [(0, False), (1, False), (2, True)])
def test_a_request_that_kills_replicas_is_final(deaths: int, is_final: bool) -> None:
    """Clients must not retry it."""
    assert POLICY.is_final(AttemptProgress(deaths=deaths)) is is_final
