"""The retry budget: a share of the requests, and no more."""

from gateway.request.tenant import Tenant
from gateway.serving.retry_budget import (
    CLIENT_RESERVE,
    MAX_CLIENTS,
    MAX_SAVED,
    RESERVE,
    SHARE,
    ClientRetryBudgets,
    RetryBudget,
)


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


def test_a_client_cannot_spend_the_retries_of_others() -> None:
    """Whose requests all need a retry has half of the reserve, and what it earns itself."""
    budgets = ClientRetryBudgets()
    hostile, bystander = budgets.of(Tenant(b"a")), budgets.of(Tenant(b"b"))
    retries = 0
    for _ in range(1000):
        hostile.earn()
        retries += hostile.spend()
    assert abs(retries - CLIENT_RESERVE - 1000 * SHARE) <= 1
    assert spent(bystander) == CLIENT_RESERVE


def test_keys_of_an_address_share_its_budget() -> None:
    """Each key has a budget of its own, and invented keys have no more than their address."""
    budgets = ClientRetryBudgets()
    first = budgets.of(Tenant(b"a", b"1"))
    assert first.spend()
    assert sum(spent(budgets.of(Tenant(b"a", b"%d" % key))) for key in range(2, 99)) == (
        CLIENT_RESERVE - 1
    )
    assert not first.is_left
    assert budgets.of(Tenant(b"b")).is_left


def test_a_client_keeps_its_budget_for_as_long_as_it_is_among_the_latest() -> None:
    """A client that asks again has what it had; one that has been away for long starts anew."""
    budgets = ClientRetryBudgets()
    spent(budgets.of(Tenant(b"a")))
    for client in range(MAX_CLIENTS):
        assert not budgets.of(Tenant(b"a")).is_left
        budgets.of(Tenant(b"%d" % client))
    for client in range(MAX_CLIENTS):
        budgets.of(Tenant(b"%d" % client))
    assert budgets.of(Tenant(b"a")).is_left
