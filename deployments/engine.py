"""The Serve deployments of one model: `Model` holds its entry, `Engine` runs it."""

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import cast

import msgspec
import ray
from pydantic import JsonValue
from ray.serve.handle import DeploymentHandle

from deployments.engines.server import EngineServer, RunningEngine
from deployments.engines.source import resolve_source
from deployments.garbage import collect_rarely
from deployments.logs import log_with_serve
from deployments.placement import rank_environment
from gateway.configfile import parse_entry
from gateway.placement import place
from gateway.registry.model import ModelEntry
from gateway.registry.sim import SimEntry
from gateway.registry.vllm import VllmEntry
from gateway.telemetry import ReplicaMetadata

PROJECT_ROOT = Path(__file__).resolve().parent.parent
WATCH_PERIOD_S = 0.5
LAST_WORDS_S = 0.5

logger = logging.getLogger("ray.serve")


class Model:
    """One model's entry; always on, so that the model is known and woken while no engine runs."""

    def __init__(self, entry: dict[str, JsonValue], engine: DeploymentHandle) -> None:
        self._entry = entry
        self._engine = engine

    def entry(self) -> dict[str, JsonValue]:
        """The model entry, as the configuration gave it."""
        return self._entry

    async def wake(self) -> None:
        """Have Serve start an engine if none runs; returns once one answers."""
        await self._engine.wake.remote()


class Engine:
    """One replica: an engine and the HTTP server through which routers, and only they, use it."""

    async def __init__(  # type: ignore[misc] # Serve awaits a constructor that wants it
        self, entry: dict[str, JsonValue]
    ) -> None:
        log_with_serve()
        self._entry = parse_entry(entry)
        self._engine = await start_engine(self._entry)
        self._server = EngineServer(self._engine, ray.util.get_node_ip_address())
        await self._server.start()
        self._watch = asyncio.create_task(self._exit_when_dead())
        collect_rarely()

    def record_replica_metadata(self) -> dict[str, JsonValue]:
        """What routers need to use this replica; Serve carries it to them."""
        metadata = ReplicaMetadata(
            model=self._entry.name,
            host=self._server.host,
            port=self._server.port,
            key=self._server.key,
            facts=self._engine.facts,
        )
        return cast("dict[str, JsonValue]", msgspec.to_builtins(metadata))

    def record_autoscaling_stats(self) -> dict[str, float]:
        """The load `deployments.autoscaling` scales on: requests here, and how many may run.

        Routers hold back what the KV cache has no room for: a cache that is full counts as requests
        in every slot.
        """
        facts = self._engine.facts
        used_tokens = facts.kv_tokens - self._engine.report.load.free_tokens
        used_slots = facts.max_sequences * used_tokens / facts.kv_tokens if facts.kv_tokens else 0
        return {
            "in_flight": max(float(self._server.in_flight), used_slots),
            "slots": float(facts.max_sequences),
        }

    async def check_health(self) -> None:
        """Serve's health check: the engine's own word, and the HTTP server's."""
        self._server.check()
        await self._engine.check()

    async def wake(self) -> None:
        """Answer, so that the call that had this replica started comes back."""

    async def __del__(self) -> None:
        """Serve's graceful stop: finish what was taken, then end the engine."""
        if not hasattr(self, "_server"):
            return
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        left = await self._server.drain(self._entry.drain_timeout_s)
        if left:
            logger.warning("drain timeout: %d requests cut short", left)
        await self._server.stop()
        await self._engine.stop()

    async def _exit_when_dead(self) -> None:
        """End this process soon after the engine: Serve replaces a dead actor at once.

        A failing health check alone would leave the replica in service for three periods.
        """
        while True:
            await asyncio.sleep(WATCH_PERIOD_S)
            try:
                await self.check_health()
            except Exception:
                logger.exception("the engine of %s died; the replica ends", self._entry.name)
                await asyncio.sleep(LAST_WORDS_S)
                os._exit(1)


async def start_engine(entry: ModelEntry) -> RunningEngine:
    """The engine of an entry, ready to serve.

    Raises:
        ConfigError: the entry asks for something the engine or this node does not have.
    """
    match entry:
        case SimEntry():
            from deployments.engines.sim import SimulatedEngine  # noqa: PLC0415

            return SimulatedEngine(entry)
        case VllmEntry():
            # Seconds of imports, and only where vLLM is installed.
            from deployments.engines.vllm import VllmEngine  # noqa: PLC0415

            os.environ.update(rank_environment(entry))
            return await VllmEngine.start(vllm_arguments(entry))


def vllm_arguments(entry: VllmEntry) -> dict[str, JsonValue]:
    """The entry as vLLM's own arguments."""
    placement = place(entry)
    arguments: dict[str, JsonValue] = {
        "model": resolve_source(entry.source, (Path.cwd(), PROJECT_ROOT)),
        "served_model_name": [entry.name],
        "tensor_parallel_size": entry.parallelism.tensor,
        "pipeline_parallel_size": entry.parallelism.pipeline,
        "distributed_executor_backend": placement.executor,
        "max_model_len": entry.max_model_len,
    }
    return {**arguments, **entry.engine_args}
