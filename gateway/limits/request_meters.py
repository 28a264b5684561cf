"""Meters that a request counts against, looked up once for each project, key and model."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.identity.project import Project
from gateway.limits.budget_limiter import MAX_FOUND, BudgetLimiter
from gateway.limits.meter import Meter
from gateway.limits.period_meter import PeriodMeter
from gateway.limits.rate_limiter import RateLimiter
from gateway.request.inference_request import InferenceRequest


@dataclass(frozen=True, slots=True)
class RequestMeters:
    """Meters of the requests of one project with one key for one model."""

    project: Project
    rates: Sequence[Meter]
    budgets: Sequence[PeriodMeter]


class KnownMeters:
    """Remembers the meters of requests until projects change."""

    def __init__(self, rates: RateLimiter, budgets: BudgetLimiter) -> None:
        self._rates = rates
        self._budgets = budgets
        self._known: dict[tuple[str, str, str, bool], RequestMeters] = {}
        """By project, key, model and whether it is batch."""

    def of(self, request: InferenceRequest, model: str) -> RequestMeters:
        """Meters that a request for a model or adapter counts against; O(1)."""
        identity = request.identity
        project, is_batch = identity.project, request.is_batch
        scope = project.id, identity.key, model, is_batch
        known = self._known.get(scope)
        # A request that came before its project changed has the earlier project.
        if known is None or known.project is not project:
            if len(self._known) >= MAX_FOUND:
                self._known.clear()
            rates = self._rates.meters_of(project, model, identity.key)
            budgets = self._budgets.meters_of(project, model, identity.key, is_batch=is_batch)
            known = self._known[scope] = RequestMeters(project, rates, budgets)
        return known

    def clear(self) -> None:
        """Look all meters up again."""
        self._known.clear()
