"""Claim: what one request of this router has set aside of its project's limits."""

from typing import NamedTuple

from gateway.limits.budget_limiter import BudgetHold, BudgetLimiter
from gateway.limits.hold import Hold
from gateway.limits.rate_limiter import RateLimiter
from gateway.routing.reservations import Reserved


class Claim:
    """A request's holds. `expected`: its tokens, as the limits count them."""

    __slots__ = ("_budgets", "_expected", "_hold", "_money", "_rates")

    def __init__(
        self,
        rates: RateLimiter,
        hold: Hold | None,
        budgets: BudgetLimiter,
        money: BudgetHold | None,
        expected: "CountedTokens",
    ) -> None:
        self._rates = rates
        self._hold = hold
        self._budgets = budgets
        self._money = money
        self._expected = expected

    def record_sending(self, id_: int, cached_tokens: int) -> Reserved:
        """Record that an attempt is about to be sent; return what all routers are told of it.

        `id_`: of its dispatch. `cached_tokens`: prompt tokens that its replica is believed to hold.
        """
        if self._hold is not None:
            self._rates.record_sending(id_, self._hold)
        if self._money is None:
            return Reserved(self._expected.after(cached_tokens), 0)
        self._budgets.record_sending(id_, self._money)
        return Reserved(self._expected.after(cached_tokens), self._money.amounts.nano)

    def record_refused(self, id_: int) -> None:
        """Record that an engine has done nothing for an attempt: refused it, or was not reached."""
        if self._hold is not None:
            self._rates.record_refused(id_)
        if self._money is not None:
            self._budgets.record_refused(id_)

    def record_ended(self) -> None:
        """Record that the request has ended."""
        if self._hold is not None:
            self._rates.record_ended(self._hold)
        if self._money is not None:
            self._budgets.record_ended(self._money)


class CountedTokens(NamedTuple):
    """Tokens of a request that count against limits: of its prompt, and of its answers."""

    prompt: int
    answer: int
    counts_cached: bool
    """Cached tokens of the prompt count, too."""

    def after(self, cached_tokens: int) -> int:
        """Tokens that count where a replica holds so much of the prompt."""
        cached = 0 if self.counts_cached else cached_tokens
        return max(0, self.prompt - cached) + self.answer
