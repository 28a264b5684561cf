"""Claim: what one request of this router has set aside of its project's limits."""

from gateway.limits.budget_limiter import BudgetHold, BudgetLimiter
from gateway.limits.hold import Hold, Left
from gateway.limits.rate_limiter import RateLimiter
from gateway.routing.reservations import Reserved


class Claim:
    """A request's holds; `prompt`, `answer`: its expected tokens."""

    __slots__ = ("_answer", "_budgets", "_hold", "_money", "_prompt", "_rates")

    def __init__(
        self,
        rates: RateLimiter,
        hold: Hold | None,
        budgets: BudgetLimiter,
        money: BudgetHold | None,
        prompt: int,
        answer: int,
    ) -> None:
        self._rates = rates
        self._hold = hold
        self._budgets = budgets
        self._money = money
        self._prompt = prompt
        self._answer = answer

    @property
    def left(self) -> Left | None:
        """What the limits of a minute leave beside it; None where there are none."""
        return None if self._hold is None else self._hold.left

    def begin(self) -> None:
        """Set aside what the request takes before it is sent: it has to wait.

        Until then nothing of the limits of a minute is set aside, so that this must be called
        before anything is awaited.
        """
        if self._hold is not None:
            self._hold.begin()

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
        tokens, nano = self._prompt + self._answer, 0
        if cached_tokens and not self._rates.counts_cached():
            tokens -= min(self._prompt, cached_tokens)
        if self._hold is not None:
            self._rates.record_sending(id_, self._hold, tokens)
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
