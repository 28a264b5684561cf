"""Limits of all projects in one router: asked before a request is admitted."""

from collections.abc import Callable, Iterable, Sequence

from gateway.asgi import Headers
from gateway.errors.anthropic import is_anthropic
from gateway.errors.limits import RateLimited
from gateway.identity.project import Project
from gateway.ledger.view import AccountsView
from gateway.limits.budget_limiter import BudgetHold, BudgetLimiter
from gateway.limits.claim import Claim
from gateway.limits.cost import NOTHING, Amounts
from gateway.limits.expected_tokens import expected_tokens, most_answer_tokens
from gateway.limits.period_meter import PeriodMeter
from gateway.limits.rate_headers import rate_headers
from gateway.limits.rate_limiter import RateLimiter, left_beside
from gateway.limits.request_meters import KnownMeters
from gateway.request.inference_request import InferenceRequest
from gateway.routing.cost_model import CostEstimates
from gateway.routing.reservations import ReservationListener
from gateway.routing.scheduler import Scheduler
from gateway.routing.target import Target
from gateway.telemetry.usage import RecentUse, Reservation

SETTLING_S = 2.0
"""Time after a router's start in which engines tell it what they know of the last minute."""
LEAST_DEVICE_S = 1e-4
"""Seconds of an engine's time that any request takes."""


class ProjectLimits:
    """Limits of all projects; `listeners` are to follow the reservations of every model.

    `clock`: seconds of a clock that never goes back. `time_of_day`: Unix time. `counts_cached`:
    whether prompt tokens found in an engine's cache count. `refuses_unknown`: whether requests are
    refused while it is not known what their project has spent.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        time_of_day: Callable[[], float],
        counts_cached: Callable[[], bool] = lambda: False,
        refuses_unknown: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._time_of_day = time_of_day
        self._counts_cached = counts_cached
        self._settled_s = clock() + SETTLING_S
        """When engines will have told what they know of the last minute."""
        self._first_view: AccountsView | None = None
        """The ledger's first view, until the engines have told what they know."""
        self._has_view = False
        self.rates = RateLimiter(clock, counts_cached)
        self.budgets = BudgetLimiter(clock, time_of_day, counts_cached, refuses_unknown)
        self._meters = KnownMeters(self.rates, self.budgets)

    @property
    def listeners(self) -> tuple[ReservationListener, ...]:
        """What follows the reservations of all models."""
        return self.rates, self.budgets

    def replace(self, projects: Iterable[Project]) -> None:
        """Follow a change of the projects."""
        projects = list(projects)
        self.rates.replace(projects)
        self.budgets.replace(projects)
        self._meters.clear()

    def end_settling(self) -> None:
        """Record that engines have told what they know: what the ledger has besides counts now."""
        self._settled_s = self._clock()

    def record_view(self, view: AccountsView) -> None:
        """Follow the ledger."""
        self.budgets.record_view(view)
        if not self._has_view:
            self._first_view, self._has_view = view, True

    @staticmethod
    def apply_to(request: InferenceRequest) -> bool:
        """Whether a request's project has limits; copies of shadow traffic count for nobody."""
        project = request.identity.project
        return bool(project.rate_limits or project.spend_limits) and not request.is_copy

    def check(self, request: InferenceRequest, model: str, adapter: str = "") -> None:
        """Refuse a request that is sure to be above a limit before it waits for an engine to start.

        Raises:
            RateLimited: its project has reached a limit, or spent its money.
            SpendUnknown: nobody knows what its project has spent.
        """
        name = adapter or model
        meters = self._meters.of(request, name)
        if meters.budgets:
            price = self.budgets.prices.at(model, adapter, self._time_of_day())
            nano = price.cost_nano(1, 0, 0, LEAST_DEVICE_S)
            least = Amounts(nano, 1)
            self.budgets.reserve(meters.budgets, least, lambda: least).release()
        self.rates.check(meters.rates, name)

    def claim(self, target: Target, scheduler: Scheduler, attempts: int = 0) -> Claim:
        """Claim what a request is expected to take.

        `Claim.begin` sets it aside, unless the request is sent before anything is awaited.
        `attempts`: how often it has been sent; with any, other routers have counted it.

        Raises:
            RateLimited: it has to wait, or is above a limit by itself.
            SpendUnknown: nobody knows what its project has spent.
        """
        if self._first_view is not None and self._clock() >= self._settled_s:
            self.rates.record_minutes(self._first_view.minutes, self._time_of_day())
            self._first_view = None
        meters = self._meters.of(target.request, target.name)
        prompt, cached, answer = expected_tokens(target, scheduler)
        hold = money = None
        if meters.budgets:
            costs = scheduler.cost_model.estimates
            money = self._reserve_money(meters.budgets, target, costs, prompt, cached, answer)
        if meters.rates:
            least = prompt
            if cached and not self._counts_cached():
                least = max(0, prompt - cached)
            try:
                hold = self.rates.admit(
                    meters.rates, target.name, least + answer, least, int(not attempts)
                )
            except RateLimited:
                if money is not None:
                    money.release()
                raise
            answer = hold.tokens - least  # it may have been cut down to the limit
        return Claim(self.rates, hold, self.budgets, money, prompt, answer)

    def headers(self, request: InferenceRequest, model: str, claim: Claim | None = None) -> Headers:
        """Headers that tell a client what limits leave: beside a request, if there is a claim."""
        left, now_s = None, None
        if claim is not None:
            left = claim.left
        elif meters := self._meters.of(request, model).rates:
            now_s = self._clock()
            left = left_beside(meters, now_s)
        if left is None:
            return []
        return rate_headers(left, now_s, self._time_of_day if is_anthropic(request.path) else None)

    def record_recent(
        self, uses: Iterable[RecentUse], within_s: float, own: Iterable[Reservation]
    ) -> None:
        """Count what an engine knows of the last minute, as far as this router has not seen it."""
        self.rates.record_recent(uses, within_s, own)

    def _reserve_money(
        self,
        meters: Sequence[PeriodMeter],
        target: Target,
        costs: CostEstimates,
        prompt: int,
        cached: int,
        answer: int,
    ) -> BudgetHold:
        if not (prompt or answer):
            return self.budgets.reserve(meters, NOTHING, lambda: NOTHING)
        price = self.budgets.prices.at(target.model.name, target.adapter, self._time_of_day())
        cached = min(cached, prompt)
        device_s = (prompt - cached) * costs.prefill_s + answer * costs.sequence_s
        nano = price.cost_nano(prompt, cached, answer, device_s)
        counted = prompt if not cached or self._counts_cached() else prompt - cached

        def most() -> Amounts:
            longest = most_answer_tokens(target, prompt, answer)
            answer_s = longest * (costs.sequence_s + costs.step_s)
            most_s = prompt * costs.prefill_s + answer_s
            return Amounts(price.cost_nano(prompt, 0, longest, most_s), prompt + longest)

        return self.budgets.reserve(meters, Amounts(nano, counted + answer), most)
