"""Retry budgets: a share of the requests, so that retries do not multiply an outage.

Method: a token bucket for each model, for each client address in it, and for each key at an
address. Every request earns a share of a retry in all three, and a retry is paid from all three.
So a client whose requests fail at will empties its own budget, and leaves others most of the
reserve and all that they have earned. Budgets of clients that have not been seen for long are
forgotten: invented keys fill no memory, and have no more than the budget of their address.

Source: retry budgets of Finagle and gRPC (a share of the requests and a reserve). Cost: O(1) a
request.
"""

from collections import OrderedDict
from typing import TypeVar

from gateway.request.tenant import Tenant

SHARE = 0.2
"""Retries that each request earns."""
RESERVE = 20.0
"""Retries that a model has from the start, however few its requests."""
CLIENT_RESERVE = 10.0
"""Retries that one client has from the start: half of the model's."""
MAX_SAVED = 100.0
"""Retries that can be saved up: the share of 500 requests."""
MAX_CLIENTS = 1024
"""Addresses, and keys, whose budgets are kept for one model."""

Name = TypeVar("Name", bytes, Tenant)


class RetryBudget:
    """Retries that are left; every request earns a share of one. O(1).

    `within`: a larger budget, which pays for each retry too.
    """

    __slots__ = ("_retries", "_within")

    def __init__(self, reserve: float = RESERVE, within: "RetryBudget | None" = None) -> None:
        self._retries = reserve
        self._within = within

    @property
    def is_left(self) -> bool:
        """Whether there is a retry left."""
        return self._retries >= 1 and (self._within is None or self._within.is_left)

    def earn(self) -> None:
        """Earn the share of a request."""
        self._retries = min(MAX_SAVED, self._retries + SHARE)
        if self._within is not None:
            self._within.earn()

    def spend(self) -> bool:
        """Spend one retry; False if none is left."""
        if not self.is_left:
            return False
        self._retries -= 1
        if self._within is not None:
            self._within.spend()
        return True


class ClientRetryBudgets:
    """Retry budgets of one model's clients, all within the model's own."""

    def __init__(self) -> None:
        self._model = RetryBudget()
        self._addresses: OrderedDict[bytes, RetryBudget] = OrderedDict()
        self._keys: OrderedDict[Tenant, RetryBudget] = OrderedDict()

    def of(self, tenant: Tenant) -> RetryBudget:
        """The budget that pays for the retries of a client's requests."""
        address = _entry(self._addresses, tenant.owner, self._model)
        return _entry(self._keys, tenant, address) if tenant.key else address


def _entry(
    budgets: "OrderedDict[Name, RetryBudget]", name: Name, within: RetryBudget
) -> RetryBudget:
    """The budget of that name, which is the latest now; the oldest of too many is dropped."""
    budget = budgets.get(name)
    if budget is None:
        budget = budgets[name] = RetryBudget(CLIENT_RESERVE, within)
        if len(budgets) > MAX_CLIENTS:
            budgets.popitem(last=False)
    else:
        budgets.move_to_end(name)
    return budget
