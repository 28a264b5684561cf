"""What routers hold back for one engine, as they last said."""

from collections.abc import Callable

from gateway.telemetry import Demand

MEMORY_S = 5.0
"""Routers say it every second: who is silent for longer has gone, and what it held with it."""


class RouterDemand:
    """One engine's; `now` is its clock, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._heard: dict[str, tuple[float, Demand]] = {}

    def hear(self, demand: Demand) -> None:
        """What a router holds now, in the place of what it held."""
        self._heard[demand.router] = self._now(), demand

    @property
    def total(self) -> Demand:
        """Of all routers that have been heard lately."""
        oldest_s = self._now() - MEMORY_S
        self._heard = {name: said for name, said in self._heard.items() if said[0] >= oldest_s}
        demands = [demand for _, demand in self._heard.values()]
        return Demand(
            requests=sum(demand.requests for demand in demands),
            prefill_tokens=sum(demand.prefill_tokens for demand in demands),
            batch_requests=sum(demand.batch_requests for demand in demands),
        )
