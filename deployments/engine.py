"""The Serve deployments of one model: `Model` holds its entry, `Engine` runs it."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import ray
from pydantic import JsonValue
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.engines.adapter_files import AdapterFiles
from deployments.engines.server import EngineServer, RunningEngine
from deployments.engines.source import resolve_source
from deployments.garbage import collect_rarely
from deployments.logs import log_with_serve
from deployments.placement import executor, rank_environment, reserved
from deployments.rollover import Rollover
from gateway.config.loader import parse_entry
from gateway.config.model import ModelEntry
from gateway.config.sim import SimEntry
from gateway.config.vllm import VllmEntry
from gateway.engine_telemetry.stats import engine_stats
from gateway.telemetry import ReplicaMetadata

PROJECT_ROOT = Path(__file__).resolve().parent.parent
WATCH_PERIOD_S = 0.5
LAST_WORDS_S = 0.5

logger = logging.getLogger("ray.serve")


class Model:
    """One model's entry; always on, so that the model is known and woken while no engine runs."""

    async def __init__(  # type: ignore[misc] # Serve awaits a constructor that wants it
        self, entry: dict[str, JsonValue], engine: DeploymentHandle
    ) -> None:
        log_with_serve()
        self._entry = entry
        self._engine = engine
        self._rollover = Rollover(entry, serve.get_replica_context().code_version, engine)
        self._changing = asyncio.create_task(self._rollover.run())

    def entry(self) -> dict[str, JsonValue]:
        """The model entry, as the configuration gave it."""
        return self._entry

    async def lack(self) -> str:
        """Why an engine waits for a place on the cluster; empty if none does."""
        return await self._rollover.lack()

    async def wake(self) -> None:
        """Have Serve start an engine if none runs; returns once one answers."""
        await self._engine.wake.remote()

    async def __del__(self) -> None:
        """Serve's graceful stop."""
        if hasattr(self, "_changing"):
            self._changing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._changing


class Engine:
    """One replica: an engine and the HTTP server through which routers, and only they, use it."""

    async def __init__(  # type: ignore[misc] # Serve awaits a constructor that wants it
        self, entry: dict[str, JsonValue]
    ) -> None:
        began_s = time.monotonic()
        log_with_serve()
        self._entry = parse_entry(entry)
        self._makes_room = False
        self._engine = await start_engine(self._entry)
        self._server = EngineServer(self._engine, ray.util.get_node_ip_address())
        await self._server.start()
        self._start_s = time.monotonic() - began_s
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
            start_s=self._start_s,
        )
        return cast("dict[str, JsonValue]", msgspec.to_builtins(metadata))

    def record_autoscaling_stats(self) -> dict[str, float]:
        """The load `deployments.autoscaling` scales on."""
        stats = engine_stats(
            self._engine.facts,
            self._engine.report,
            in_flight=self._server.in_flight,
            held=self._server.held,
            start_s=self._start_s,
        )
        return stats.as_metrics()

    async def check_health(self) -> None:
        """Serve's health check: the engine's own word, and the HTTP server's."""
        if self._makes_room:
            raise RuntimeError("this engine stops to make room for one with its model's new entry")
        await self._check()

    async def _check(self) -> None:
        self._server.check()
        await self._engine.check()

    def holding(self) -> dict[str, Any]:
        """What `Rollover` asks: this replica's version, and what it has reserved, by node."""
        return {
            "replica": _replica_id(),
            "version": serve.get_replica_context().code_version,
            "reserved": reserved(self._entry),
        }

    def make_room(self, replicas: Sequence[str]) -> None:
        """Have Serve stop this replica, if it is one of those: `Rollover` explains."""
        self._makes_room = self._makes_room or _replica_id() in replicas

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
                await self._check()
            except Exception:
                logger.exception("the engine of %s died; the replica ends", self._entry.name)
                await asyncio.sleep(LAST_WORDS_S)
                os._exit(1)


def _replica_id() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)


async def start_engine(entry: ModelEntry) -> RunningEngine:
    """The engine of an entry, ready to serve.

    Raises:
        ConfigError: the entry asks for something the engine or this node does not have.
    """
    os.environ.update(rank_environment(entry))
    match entry:
        case SimEntry():
            from deployments.engines.sim import SimulatedEngine  # noqa: PLC0415

            return await SimulatedEngine.start(entry)
        case VllmEntry():
            # Seconds of imports, and only where vLLM is installed.
            from deployments.engines.vllm import VllmEngine  # noqa: PLC0415

            return await VllmEngine.start(
                vllm_arguments(entry), adapter_files(entry), entry.loaded_adapters_limit
            )


def vllm_arguments(entry: VllmEntry) -> dict[str, JsonValue]:
    """The entry as vLLM's own arguments."""
    arguments: dict[str, JsonValue] = {
        "model": resolve_source(entry.source, source_roots()),
        "served_model_name": [entry.name],
        "tensor_parallel_size": entry.parallelism.tensor,
        "pipeline_parallel_size": entry.parallelism.pipeline,
        "distributed_executor_backend": executor(entry),
        "max_model_len": entry.max_model_len,
        "gpu_memory_utilization": entry.gpu_memory_utilization,
    }
    return {**arguments, **entry.engine_args}


def adapter_files(entry: ModelEntry) -> list[AdapterFiles]:
    """Where the entry's adapters are."""
    roots = source_roots()
    return [AdapterFiles(adapter.name, adapter.source, roots) for adapter in entry.adapters]


def source_roots() -> tuple[Path, ...]:
    """Where a path in an entry begins."""
    return Path.cwd(), PROJECT_ROOT
