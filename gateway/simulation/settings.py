"""Settings of a simulation: replicas, routers and telemetry."""

from dataclasses import dataclass, replace

from gateway.simulation.batching import EngineProfile
from gateway.telemetry.facts import EngineFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """Settings of a simulation."""

    replicas: int
    engine: EngineProfile
    routers: int = 1
    is_priority: bool = True
    """Whether waiting requests start in order of priority; otherwise in order of arrival."""
    telemetry_every_s: float = 0.05
    """Least time between two updates of a replica."""
    telemetry_delay_s: float = 0.002
    """Time that an update takes to the routers."""

    def with_routers(self, routers: int) -> "SimulationSettings":
        """Return the same settings with so many routers."""
        return replace(self, routers=routers)

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit into the KV cache of one replica."""
        return self.engine.kv_blocks * self.engine.block_size

    @property
    def facts(self) -> EngineFacts:
        """Facts that each replica publishes about itself."""
        return EngineFacts(
            engine="sim",
            routes=(),
            kv_tokens=self.kv_tokens,
            block_size=self.engine.block_size,
            max_sequences=self.engine.max_running,
            max_model_len=self.kv_tokens,
            supports_priority=self.is_priority,
            step_tokens=self.engine.step_tokens,
        )
