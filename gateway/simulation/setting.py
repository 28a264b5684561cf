"""What the lab runs a workload on."""

from dataclasses import dataclass

from gateway.simulation.batching import EngineSpeeds
from gateway.telemetry import EngineFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSettings:
    """Replicas, routers, and what lies between them."""

    replicas: int
    engine: EngineSpeeds
    routers: int = 1
    is_priority: bool = True
    """Waiting requests start in the order of their dispatches' priority; otherwise, of arrival."""
    telemetry_every_s: float = 0.05
    """Time between two frames of a replica, at least."""
    telemetry_delay_s: float = 0.002
    """Until a frame is with the routers."""

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache of one replica has room for."""
        return self.engine.kv_blocks * self.engine.block_size

    @property
    def facts(self) -> EngineFacts:
        """What the replicas publish about themselves."""
        return EngineFacts(
            engine="sim",
            routes=(),
            kv_tokens=self.kv_tokens,
            block_size=self.engine.block_size,
            max_sequences=self.engine.max_running,
            max_model_len=self.kv_tokens,
            takes_priority=self.is_priority,
            step_tokens=self.engine.step_tokens,
        )
