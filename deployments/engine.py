"""Serve deployments of one model: `ModelIngress` holds its entry, `EngineReplica` runs it."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import ray
from pydantic import JsonValue
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.engine_failure import EngineStartFailed
from deployments.engine_kinds import start_engine
from deployments.engines.liveness import EngineLiveness
from deployments.engines.server import EngineServer, RunningEngine
from deployments.placement import reserved
from deployments.process_setup import collect_garbage_rarely, log_with_serve
from deployments.rollover import Rollover
from deployments.serve_internals.start_failures import StartFailures
from deployments.watchdog import ReplicaWatchdog
from gateway.config.loader import parse_entry
from gateway.config.model import ModelEntry
from gateway.engine_telemetry.stats import engine_stats
from gateway.telemetry.facts import ReplicaMetadata

WATCH_PERIOD_S = 0.5
EXIT_DELAY_S = 0.5
"""Time for a dead engine's server to tell routers, before its process ends."""

logger = logging.getLogger("ray.serve")


class ModelIngress:
    """Holder of one model's entry; always on, so that a model without engines can be started."""

    async def __init__(  # type: ignore[misc] # Serve awaits a constructor that wants it
        self, entry: dict[str, JsonValue], engine: DeploymentHandle
    ) -> None:
        log_with_serve()
        self._entry = entry
        self._engine = engine
        self._rollover = Rollover(entry, serve.get_replica_context().code_version, engine)
        self._rolling_over = asyncio.create_task(self._rollover.run())

    def entry(self) -> dict[str, JsonValue]:
        """The model entry, as the configuration has it."""
        return self._entry

    async def wait_reason(self) -> str:
        """Why an engine waits for resources of the cluster; empty if none does."""
        return await self._rollover.wait_reason()

    async def start_engine(self) -> None:
        """Have Serve start an engine if none runs; returns once one answers."""
        await self._engine.ping.remote()

    async def __del__(self) -> None:
        """Serve's graceful stop."""
        if hasattr(self, "_rolling_over"):
            self._rolling_over.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._rolling_over


class EngineReplica:
    """One engine, and the HTTP server through which only routers use it."""

    async def __init__(  # type: ignore[misc] # Serve awaits a constructor that wants it
        self, entry: dict[str, JsonValue]
    ) -> None:
        began_s = time.monotonic()
        log_with_serve()
        self._is_retired = False
        try:
            self._entry = parse_entry(entry)
            self._engine = await _start_once(self._entry)
        except Exception:
            # Serve shows the whole traceback as its message: this process ends, and the log has it.
            sys.tracebacklimit = 0
            raise
        self._server = EngineServer(self._engine, ray.util.get_node_ip_address())
        await self._server.start()
        self._start_s = time.monotonic() - began_s
        hang_timeout_s, name = self._entry.hang_timeout_s, self._entry.name
        self._liveness = EngineLiveness(self._engine, hang_timeout_s)
        # Until here the engine may block this process's event loop, and for long.
        self._watchdog = ReplicaWatchdog(f"model {name}: replica {_replica_id()}", hang_timeout_s)
        self._watch = asyncio.create_task(self._exit_when_dead())
        collect_garbage_rarely()

    def record_replica_metadata(self) -> dict[str, JsonValue]:
        """Metadata that routers need to use this replica; Serve carries it to them."""
        metadata = ReplicaMetadata(
            model=self._entry.name,
            host=self._server.host,
            port=self._server.port,
            key=self._server.key,
            facts=self._engine.facts,
            start_s=self._start_s,
            pid=os.getpid(),
        )
        return cast("dict[str, JsonValue]", msgspec.to_builtins(metadata))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Load of this replica, on which `deployments.autoscaling` scales.

        Serve would call a plain method in a thread, beside the loop that changes what it reads.
        """
        stats = engine_stats(
            self._engine.facts,
            self._engine.tracker,
            in_flight=self._server.in_flight,
            held=self._server.demand,
            start_s=self._start_s,
        )
        return stats.as_metrics()

    async def check_health(self) -> None:
        """Serve's health check: of the engine, and of its HTTP server."""
        if self._is_retired:
            raise RuntimeError(
                "retired: this engine stops to make room for one with its model's new entry"
            )
        await self._check()

    async def _check(self) -> None:
        self._server.check()
        await self._engine.check()
        self._liveness.check()

    def reservation(self) -> dict[str, Any]:
        """This replica's id, its version, and what it has reserved, by node: for `Rollover`."""
        return {
            "replica": _replica_id(),
            "version": serve.get_replica_context().code_version,
            "reserved": reserved(self._entry),
        }

    def retire(self, replicas: Sequence[str]) -> None:
        """Have Serve stop this replica, if it is one of `replicas`: `Rollover` explains."""
        self._is_retired = self._is_retired or _replica_id() in replicas

    async def ping(self) -> None:
        """Answer, so that a call that had this replica started returns."""

    async def __del__(self) -> None:
        """Serve's graceful stop: finish the requests in flight, then end the engine."""
        if not hasattr(self, "_server"):
            return
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        left = await self._server.drain(self._entry.drain_timeout_s)
        if left:
            logger.warning(
                "model %s: %d requests were cut off after `drain_timeout_s` (%g s)",
                *(self._entry.name, left, self._entry.drain_timeout_s),
            )
        await self._server.stop()
        await self._liveness.stop()
        await self._engine.stop()
        await self._watchdog.stop()

    async def _exit_when_dead(self) -> None:
        """End this process soon after its engine died or hangs: Serve replaces it at once.

        A failing health check alone would leave the replica in service for three periods, and its
        graceful stop would wait for requests that the engine no longer works on. The watchdog ends
        what is left of the engine.
        """
        while True:
            await asyncio.sleep(WATCH_PERIOD_S)
            try:
                await self._check()
            except Exception as error:  # noqa: BLE001 - whatever it is, the engine cannot go on
                logger.error(  # noqa: TRY400 - the line says it all
                    "model %s: replica %s exits, and Serve starts another: %s",
                    *(self._entry.name, _replica_id(), str(error) or repr(error)),
                )
                await asyncio.sleep(EXIT_DELAY_S)
                os._exit(1)


async def _start_once(entry: ModelEntry) -> RunningEngine:
    """Start an engine, or raise the reason for which the same start has failed before."""
    failures = StartFailures()
    if reason := await failures.repeated():
        raise EngineStartFailed(reason, is_final=True)
    try:
        return await start_engine(entry)
    except EngineStartFailed as error:
        if error.is_final:
            await failures.keep(error.reason)
        raise


def _replica_id() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)
