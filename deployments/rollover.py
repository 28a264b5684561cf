"""A model's changed engines replace its old ones, also where there is no room for both.

Serve starts changed engines beside the old ones (`SURGE_PERCENT` of them at a time, at least one)
and stops an old one only when a changed one runs. Where the cluster has no room beside the old
engines, that would wait for ever: then as many old ones stop as it takes. Each finishes what it has
taken; requests that no engine takes meanwhile wait in the routers. An engine that is asked to yield
fails its health check, upon which Serve 2.60 stops it in the orderly way and calls the deployment
no less healthy: it has no other way to say which replica shall go.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import DeploymentStatusOverview, ReplicaState

from deployments.shortage import UNEXPLAINED, read_cluster, unplaced
from gateway.configfile import parse_entry
from gateway.placement import place
from gateway.rollover import Holder, yielding
from gateway.shortage import Cluster, shortage

PERIOD_S = 2.0
PATIENCE_S = 15.0
"""How long a changed engine waits before old ones make room for it: in that time the autoscaler has
said that it adds a node, and what has just been stopped is gone."""
ANSWER_TIMEOUT_S = 10.0
_OVER = {"HEALTHY", "DEPLOY_FAILED"}

logger = logging.getLogger("ray.serve")


class Rollover:
    """Sees one change of a model's entry through, until no old engine is left to replace."""

    def __init__(self, entry: dict[str, JsonValue], engine: DeploymentHandle) -> None:
        self._entry = entry
        self._engine = engine
        self._placement = place(parse_entry(entry))
        self._looks_in_vain = 0
        self._has_asked = False
        self._plan = ""

    async def run(self) -> None:
        """Watch until the change is through; a failed look is logged, and another one follows."""
        app, deployment = self._engine.app_name, self._engine.deployment_name
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                status = await asyncio.to_thread(serve.status)
                if app not in status.applications:
                    continue  # the controller may be restarting
                overview = status.applications[app].deployments.get(deployment)
                if overview is None or overview.status in _OVER:
                    self._plan = ""
                    return
                await self._look(overview)
            except Exception:
                logger.exception("could not see how far %s has changed", self._entry["name"])

    async def lack(self) -> str:
        """Why an engine of the model waits for a place and what comes of it; empty if none does."""
        lack = await asyncio.to_thread(self._lack)
        return f"a changed engine {lack}; {self._plan}" if lack and self._plan else lack

    def _lack(self) -> str:
        if not self._is_unplaced():
            return ""
        return shortage(self._placement, read_cluster()) or UNEXPLAINED

    def _is_unplaced(self) -> bool:
        return self._engine.app_name in unplaced(self._engine.deployment_name)

    async def _look(self, overview: DeploymentStatusOverview) -> None:
        states = overview.replica_states
        if states.get(ReplicaState.STARTING) and states.get(ReplicaState.STOPPING):
            self._has_asked = False
            return  # room is being made
        is_short = states.get(ReplicaState.STARTING) and states.get(ReplicaState.RUNNING)
        cluster = await asyncio.to_thread(self._cluster_without_room) if is_short else None
        old = await self._old_engines() if cluster else []
        if cluster is None or not old:
            self._looks_in_vain, self._has_asked, self._plan = 0, False, ""
            return
        self._looks_in_vain = 0 if cluster.coming else self._looks_in_vain + 1
        await self._decide(cluster, old)

    def _cluster_without_room(self) -> Cluster | None:
        """The cluster, if a changed engine waits that it has no room for."""
        if not self._is_unplaced():
            return None
        cluster = read_cluster()
        return cluster if shortage(self._placement, cluster) else None

    async def _decide(self, cluster: Cluster, old: Sequence[Holder]) -> None:
        leaving = yielding(self._placement, cluster, old)
        if leaving is None:
            self._say(
                "it would not fit without the old ones either, which go on as they are", cluster
            )
        elif self._looks_in_vain * PERIOD_S < PATIENCE_S:
            if self._has_asked:
                return  # Serve takes a few seconds to see that an engine wants to stop
            self._say(
                f"unless that changes within {PATIENCE_S:g} s, {len(leaving)} of {len(old)} old"
                " engines stop to make room",
                cluster,
            )
        else:
            self._say(
                f"{len(leaving)} of {len(old)} old engines finish what they have and stop to make"
                " room",
                cluster,
            )
            self._looks_in_vain, self._has_asked = 0, True
            await self._ask_all("make_room", leaving)

    def _say(self, plan: str, cluster: Cluster) -> None:
        if plan != self._plan:
            lack = shortage(self._placement, cluster)
            logger.warning("model %s: a changed engine %s; %s", self._entry["name"], lack, plan)
        self._plan = plan

    async def _old_engines(self) -> list[Holder]:
        """The engines that run with another entry."""
        holdings = await self._ask_all("holding")
        return [
            Holder(holding["replica"], holding["reserved"])
            for holding in holdings
            if holding["entry"] != self._entry
        ]

    async def _ask_all(self, method: str, *args: object) -> Sequence[Any]:
        """What the engines that run answer; one that has just gone is left out."""
        response = self._engine.broadcast(method, *args)
        answers = await response.results_async(timeout_s=ANSWER_TIMEOUT_S, return_exceptions=True)
        return [answer for answer in answers if not isinstance(answer, Exception)]
