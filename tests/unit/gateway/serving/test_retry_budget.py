"""The retry budget: a share of the requests, and no more."""

from gateway.serving.retry_budget import MAX_SAVED, RESERVE, SHARE, RetryBudget


def spent(budget: RetryBudget) -> int:
    """How many retries can be had."""
    count = 0
    while budget.spend():
        count += 1
    return count


def test_an_idle_model_has_a_reserve() -> None:
    """The first requests of a model may be retried, too."""
    assert spent(RetryBudget()) == RESERVE


def test_retries_are_a_share_of_the_requests() -> None:
    """If every request needs a retry, a fifth of them get one, plus the reserve."""
    budget = RetryBudget()
    spent(budget)
    retries = 0
    for _ in range(1000):
        budget.earn()
        retries += budget.spend()
    assert abs(retries - 1000 * SHARE) <= 1


def test_saved_retries_are_limited() -> None:
    """Long good times do not pay for a storm of retries."""
    budget = RetryBudget()
    for _ in range(100_000):
        budget.earn()
    assert spent(budget) == MAX_SAVED
