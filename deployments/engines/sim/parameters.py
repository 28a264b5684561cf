"""Parameters of a simulated engine, from its model's entry."""

from gateway.config.sim import SimEntry, Simulation
from gateway.simulation.batching import EngineProfile
from gateway.telemetry.facts import EngineFacts


def engine_profile(simulation: Simulation) -> EngineProfile:
    """Sizes and speeds of the modelled replica."""
    return EngineProfile(
        kv_blocks=simulation.kv_tokens // simulation.block_size,
        block_size=simulation.block_size,
        max_running=simulation.max_sequences,
        step_tokens=simulation.step_tokens,
        step_s=simulation.step_s,
        step_s_per_prefill_token=simulation.step_s_per_prefill_token,
        step_s_per_sequence=simulation.step_s_per_sequence,
    )


def engine_facts(entry: SimEntry, routes: tuple[str, ...]) -> EngineFacts:
    """Facts that routers need to know; `routes`: those that the engine answers."""
    simulation = entry.simulation
    whole_blocks = simulation.kv_tokens // simulation.block_size * simulation.block_size
    return EngineFacts(
        engine="sim",
        routes=routes,
        kv_tokens=simulation.kv_tokens,
        block_size=simulation.block_size,
        max_sequences=simulation.max_sequences,
        # A longer request would wait for room in the cache for ever.
        max_model_len=min(simulation.max_model_len, whole_blocks),
        supports_priority=True,
        step_tokens=simulation.step_tokens,
        adapters=tuple(adapter.name for adapter in entry.adapters),
        model=entry.name,
        devices=entry.parallelism.workers,
    )
