"""Claim: what one request of this router has set aside of its project's limits."""

from gateway.limits.budget_limiter import BudgetHold, BudgetLimiter
from gateway.limits.hold import Hold
from gateway.limits.rate_limiter import RateLimiter
from gateway.routing.reservations import Reserved


class Claim:
    """A request's holds.

    `prompt`, `answer`: its expected tokens. `counts_cached`: cached ones count, too.
    """

    __slots__ = ("_answer", "_budgets", "_counts_cached", "_hold", "_money", "_prompt", "_rates")

    def __init__(
        self,
        rates: tuple[RateLimiter, Hold | None],
        budgets: tuple[BudgetLimiter, BudgetHold | None],
        prompt: int,
        answer: int,
        *,
        counts_cached: bool,
    ) -> None:
        self._rates, self._hold = rates
        self._budgets, self._money = budgets
        self._prompt = prompt
        self._answer = answer
        self._counts_cached = counts_cached

    def check_again(self, model: str) -> None:
        """Check a request that has waited in a queue, if it has not been sent before.

        Raises:
            RateLimited: what all routers have sent meanwhile leaves no room for it.
        """
        if self._hold is not None:
            self._rates.check_again(self._hold, model)
        if self._money is not None:
            self._budgets.check_again(self._money)

    def record_sending(self, id_: int, cached_tokens: int) -> Reserved:
        """Record that an attempt is about to be sent; return what all routers are told of it.

        `id_`: of its dispatch. `cached_tokens`: prompt tokens that its replica is believed to hold.
        """
        cached = 0 if self._counts_cached else cached_tokens
        tokens, nano = max(0, self._prompt - cached) + self._answer, 0
        if self._hold is not None:
            self._rates.record_sending(id_, self._hold)
        if self._money is not None:
            self._budgets.record_sending(id_, self._money)
            nano = self._money.amounts.nano
        return Reserved(tokens, nano)

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
