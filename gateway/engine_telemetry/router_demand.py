"""Demand that routers hold back for one engine, from their latest reports."""

from collections.abc import Callable

from gateway.telemetry.demand import Demand

EXPIRY_S = 5.0
"""Routers report every second. One that is silent for this long is gone, and so is its demand."""


class RouterDemand:
    """Latest demand of every router for one engine; `now` is the engine's clock, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._reports: dict[str, tuple[float, Demand]] = {}
        """Time and content of each router's latest report."""
        self._changed: set[str] = set()
        """Routers whose held projects have changed since they were last published."""

    @property
    def has_changes(self) -> bool:
        """Whether what routers hold by project has changed since it was last published."""
        self._expire()
        return bool(self._changed)

    @property
    def total(self) -> Demand:
        """Sum over all routers with a recent report."""
        self._expire()
        demands = [demand for _, demand in self._reports.values()]
        return Demand(
            requests=sum(demand.requests for demand in demands),
            prefill_tokens=sum(demand.prefill_tokens for demand in demands),
            batch_requests=sum(demand.batch_requests for demand in demands),
        )

    @property
    def held(self) -> dict[str, dict[str, int]]:
        """Interactive requests that routers hold, by router and project."""
        self._expire()
        return {
            router: demand.projects
            for router, (_, demand) in self._reports.items()
            if demand.projects
        }

    def record(self, demand: Demand) -> None:
        """Replace the demand of the router that sent this report."""
        if demand.projects != self._projects(demand.router):
            self._changed.add(demand.router)
        self._reports[demand.router] = self._now(), demand

    def pop_held(self) -> dict[str, dict[str, int]] | None:
        """Return `held` of the routers for which it has changed since the last call, if any."""
        if not self.has_changes:
            return None
        changed = {router: self._projects(router) for router in self._changed}
        self._changed = set()
        return changed

    def _projects(self, router: str) -> dict[str, int]:
        report = self._reports.get(router)
        return report[1].projects if report else {}

    def _expire(self) -> None:
        oldest_s = self._now() - EXPIRY_S
        for router, (reported_s, demand) in list(self._reports.items()):
            if reported_s < oldest_s:
                del self._reports[router]
                if demand.projects:
                    self._changed.add(router)
