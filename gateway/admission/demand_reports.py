"""Reports on the demand that a router holds for its replicas: which are due."""

from collections.abc import Mapping, Set

from gateway.routing.fleet import Replica
from gateway.telemetry.demand import Demand

REPORT_S = 0.05
"""Least time between reports that other projects than before wait for a replica."""


class DemandReports:
    """What each replica has been told, so that it learns of changes, and of the end of demand."""

    def __init__(self) -> None:
        self._told: dict[Replica, Set[str]] = {}
        """Projects in the last report to each replica; without those for which nothing waited."""

    def due(
        self, demands: Mapping[Replica, Demand], *, only_changes: bool = False
    ) -> dict[Replica, Demand]:
        """Return what to report now: demand, or once that there is none any longer.

        `only_changes`: only to replicas for which other projects wait than they were told.
        """
        news = {r: demands.get(r, Demand()) for r in self._told.keys() | demands.keys()}
        if only_changes:
            news = {
                r: demand
                for r, demand in news.items()
                if demand.projects.keys() != self._told.get(r, set())
            }
        for replica in news:
            if replica in demands:
                self._told[replica] = demands[replica].projects.keys()
            else:
                del self._told[replica]
        return news
