"""Limits of all projects in one router: asked before a request is admitted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.asgi import Headers
from gateway.identity.project import Project
from gateway.ledger.view import AccountsView
from gateway.limits.budget_limiter import BudgetLimiter, has_budget
from gateway.limits.claim import Claim, CountedTokens
from gateway.limits.cost import NOTHING, Amounts, cost_nano
from gateway.limits.expected_tokens import ExpectedTokens, expected_tokens
from gateway.limits.rate_headers import rate_headers
from gateway.limits.rate_limiter import RateLimiter
from gateway.request.inference_request import InferenceRequest
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target
from gateway.telemetry import RecentUse, Reservation, UsageRecord


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """How limits count."""

    counts_cached: bool = False
    """Prompt tokens found in an engine's cache count."""
    refuses_unknown: bool = False
    """Requests are refused while it is not known what their project has spent."""


class ProjectLimits:
    """Limits of all projects; a listener to the reservations of every model.

    `clock`: seconds of a clock that never goes back. `time_of_day`: Unix time.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        time_of_day: Callable[[], float],
        options: Callable[[], LimitOptions] = LimitOptions,
    ) -> None:
        self._clock = clock
        self._time_of_day = time_of_day
        self._options = options
        self.rates = RateLimiter(clock, lambda: options().counts_cached)
        self.budgets = BudgetLimiter(
            clock,
            time_of_day,
            lambda: options().counts_cached,
            lambda: options().refuses_unknown,
        )

    def replace(self, projects: Iterable[Project]) -> None:
        """Follow a change of the projects."""
        projects = list(projects)
        self.rates.replace(projects)
        self.budgets.replace(projects)

    def record_view(self, view: AccountsView) -> None:
        """Follow the ledger."""
        self.budgets.record_view(view)

    @staticmethod
    def apply_to(request: InferenceRequest) -> bool:
        """Whether a request's project has limits; copies of shadow traffic count for nobody."""
        project = request.identity.project
        return bool(project.rate_limits or project.spend_limits) and not request.is_copy

    def check(self, request: InferenceRequest, model: str) -> None:
        """Refuse a request that is sure to be above a limit before it waits for an engine to start.

        Raises:
            RateLimited: its project has reached a limit.
        """
        project, key = request.identity.project, request.identity.key
        self.rates.check(self.rates.meters_of(project, model, key), model)

    def claim(self, target: Target, scheduler: Scheduler) -> Claim | None:
        """Set aside what a request is expected to take; None if nothing limits it.

        Raises:
            RateLimited: it has to wait, or is above a limit by itself.
            SpendUnknown: nobody knows what its project has spent.
        """
        request, identity = target.request, target.request.identity
        project = identity.project
        expected = expected_tokens(target, scheduler)
        counts_cached = self._options().counts_cached
        counted = CountedTokens(expected.prompt, expected.answer, counts_cached)
        money = None
        if has_budget(project):
            meters = self.budgets.meters_of(
                project, target.name, identity.key, is_batch=request.is_batch
            )
            if meters:
                money = self.budgets.reserve(
                    meters,
                    self._amounts(target, scheduler, expected),
                    lambda: self._most(target, scheduler, expected),
                )
        try:
            rated = self.rates.meters_of(project, target.name, identity.key)
            hold = None
            if rated:
                tokens = counted.after(expected.cached)
                least = tokens - expected.answer
                hold = self.rates.reserve(rated, target.name, tokens, least)
        except BaseException:
            if money is not None:
                money.release()
            raise
        return Claim(self.rates, hold, self.budgets, money, counted)

    def headers(self, request: InferenceRequest, model: str) -> Headers:
        """Headers that tell the client what the limits leave."""
        project, key = request.identity.project, request.identity.key
        meters = self.rates.meters_of(project, model, key)
        if not meters:
            return []
        is_anthropic = request.path.startswith("/v1/messages")
        return rate_headers(meters, self._clock(), self._time_of_day if is_anthropic else None)

    def record_reserved(self, reservation: Reservation) -> None:
        """Count a request that runs from now on."""
        self.rates.record_reserved(reservation)
        self.budgets.record_reserved(reservation)

    def record_settled(self, reservation: Reservation, usage: UsageRecord | None) -> None:
        """Count what a request took instead of what it was expected to; None: nobody knows."""
        self.rates.record_settled(reservation, usage)
        self.budgets.record_settled(reservation, usage)

    def record_recent(self, uses: Iterable[RecentUse], within_s: float) -> None:
        """Count what an engine knows of the last minute, as far as this router has not seen it."""
        self.rates.record_recent(uses, within_s)

    def _amounts(self, target: Target, scheduler: Scheduler, expected: ExpectedTokens) -> Amounts:
        costs = scheduler.cost_model.estimates
        uncached = max(0, expected.prompt - expected.cached)
        device_s = uncached * costs.prefill_s + expected.answer * costs.sequence_s
        return self._cost(target, expected, expected.cached, expected.answer, device_s)

    def _most(self, target: Target, scheduler: Scheduler, expected: ExpectedTokens) -> Amounts:
        costs = scheduler.cost_model.estimates
        answer_s = expected.most_answer * (costs.sequence_s + costs.step_s)
        device_s = expected.prompt * costs.prefill_s + answer_s
        return self._cost(target, expected, 0, expected.most_answer, device_s)

    def _cost(
        self,
        target: Target,
        expected: ExpectedTokens,
        cached: int,
        answer: int,
        device_s: float,
    ) -> Amounts:
        if not (expected.prompt or answer):
            return NOTHING
        nano = cost_nano(
            self.budgets.prices,
            target.model.name,
            target.adapter,
            self._time_of_day(),
            prompt_tokens=expected.prompt,
            cached_tokens=min(cached, expected.prompt),
            completion_tokens=answer,
            device_s=device_s,
        )
        uncounted = 0 if self._options().counts_cached else cached
        return Amounts(nano, max(0, expected.prompt - uncounted) + answer)
