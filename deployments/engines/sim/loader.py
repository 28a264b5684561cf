"""How the simulated engine loads adapters."""

from deployments.engines.sim.core import Clock
from gateway.config.sim import Simulation


class SimulatedLoader:
    """Loads adapters that consist of their names only."""

    def __init__(self, simulation: Simulation, clock: Clock) -> None:
        self._load_s = simulation.adapter_load_s / simulation.time_scale
        self._is_instant = simulation.instant
        self._clock = clock

    async def fetch(self, name: str) -> None:
        """Do nothing: there are no files."""

    async def load(self, name: str) -> None:
        """Wait for as long as a load takes."""
        if not self._is_instant:
            await self._clock.sleep(self._load_s)

    async def unload(self, name: str) -> None:
        """Do nothing."""
