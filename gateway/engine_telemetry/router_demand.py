"""Demand that routers hold back for one engine, from their latest reports."""

from collections.abc import Callable

from gateway.telemetry import Demand

MEMORY_S = 5.0
"""Routers report every second. One that is silent for this long is gone, and so is its demand."""


class RouterDemand:
    """Latest demand of every router for one engine; `now` is the engine's clock, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._reports: dict[str, tuple[float, Demand]] = {}
        """Time and content of each router's latest report."""

    def hear(self, demand: Demand) -> None:
        """Replace the demand of the router that sent this report."""
        self._reports[demand.router] = self._now(), demand

    @property
    def total(self) -> Demand:
        """Sum over all routers with a recent report."""
        oldest_s = self._now() - MEMORY_S
        self._reports = {
            router: report for router, report in self._reports.items() if report[0] >= oldest_s
        }
        demands = [demand for _, demand in self._reports.values()]
        return Demand(
            requests=sum(demand.requests for demand in demands),
            prefill_tokens=sum(demand.prefill_tokens for demand in demands),
            batch_requests=sum(demand.batch_requests for demand in demands),
        )
