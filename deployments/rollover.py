"""A model's changed engines replace its old ones, also where there is no room for both.

Serve starts changed engines beside the old ones (`MAX_SURGE_PERCENT` of them at once, at least one)
and stops an old one only when a changed one runs. Where the cluster has no room beside the old
engines, that would wait for ever: then as many old ones stop as it takes. Each finishes what it has
taken; requests that no engine takes meanwhile wait in the routers. An engine that is asked to yield
fails its health check, upon which Serve 2.60 stops it in the orderly way and calls the deployment
no less healthy: it has no other way to say which replica shall go.

The room made may go to somebody else, and a changed engine may fail in it. So old engines are asked
once for each changed one that comes to run: whatever happens, the others go on.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import DeploymentStatusOverview, ReplicaState

from deployments.shortage import UNEXPLAINED, read_cluster, unplaced
from gateway.cluster.placement import plan_placement
from gateway.cluster.rollover import ReplicaReservation, replicas_to_stop
from gateway.cluster.shortage import Cluster, explain_shortage
from gateway.config.loader import parse_entry

PERIOD_S = 2.0
PATIENCE_S = 15.0
"""How long a changed engine waits before old ones make room for it: in that time the autoscaler has
said that it adds a node, and what has just been stopped is gone."""
PATIENCE_WITH_RAY_S = 60.0
"""The same where there should be room, and only Ray knows why it finds none."""
PATIENCE_WITH_NODES_S = 300.0
"""How long nodes that are being added are waited for: some never come."""
ANSWER_TIMEOUT_S = 10.0
_OVER = {"HEALTHY", "DEPLOY_FAILED"}
_GONE = (RayActorError, DeploymentUnavailableError)
_UNEXPLAINED_CHANGE = "waits for Ray to place it"

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class _Situation:
    """A changed engine waits for a place; this is what there is to decide on."""

    cluster: Cluster
    is_loading: bool
    """Whether another changed engine has a place, and starts there."""
    old: Sequence[ReplicaReservation]
    mute: int
    """Engines that answer with an error, taken for old ones; nothing else is known of them."""
    changed: int
    """Engines of the new version that run."""

    @property
    def ids(self) -> set[str]:
        """The old replicas."""
        return {holder.replica for holder in self.old}


class Rollover:
    """Sees one change of a model's application through, until no old engine is left to replace."""

    def __init__(
        self, entry: dict[str, JsonValue], version: str | None, engine: DeploymentHandle
    ) -> None:
        self._entry = entry
        self._version = version
        self._engine = engine
        self._placement = plan_placement(parse_entry(entry))
        self._looks_in_vain = 0
        self._looks_for_nodes = 0
        self._asked: Sequence[str] = ()
        """The old engines that were asked last to make room."""
        self._changed_when_asked = -1
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
        _, cluster = await asyncio.to_thread(self._waiting)
        if cluster is None:
            return ""
        return self._sentence(cluster) if self._plan else self._shortage(cluster) or UNEXPLAINED

    def _sentence(self, cluster: Cluster) -> str:
        return f"a changed engine {self._shortage(cluster) or _UNEXPLAINED_CHANGE}; {self._plan}"

    def _shortage(self, cluster: Cluster) -> str | None:
        return explain_shortage(self._placement, cluster)

    def _waiting(self) -> tuple[int, Cluster | None]:
        """How many engines are on no node yet, and the cluster if Ray seeks a place for one."""
        count = unplaced(self._engine.app_name, self._engine.deployment_name)
        cluster = read_cluster() if count else None
        return count, cluster if cluster and cluster.has_demand_for(self._placement) else None

    async def _look(self, overview: DeploymentStatusOverview) -> None:
        states = overview.replica_states
        starting = states.get(ReplicaState.STARTING, 0)
        if starting and states.get(ReplicaState.STOPPING):
            self._looks_in_vain = 0
            return  # room is being made
        waiting, cluster = 0, None
        if starting and states.get(ReplicaState.RUNNING):
            waiting, cluster = await asyncio.to_thread(self._waiting)
        now = await self._situation(cluster, starting > waiting) if cluster else None
        if now is None or not (now.old or now.mute):
            self._looks_in_vain, self._looks_for_nodes, self._plan = 0, 0, ""
            return
        await self._decide(now)

    async def _decide(self, now: _Situation) -> None:
        if now.cluster.pending_nodes and self._looks_for_nodes * PERIOD_S < PATIENCE_WITH_NODES_S:
            self._looks_for_nodes += 1
            self._say(
                f"old engines go on meanwhile, {PATIENCE_WITH_NODES_S / 60:g} minutes at most", now
            )
            return
        leaving = replicas_to_stop(self._placement, now.cluster, now.old)
        if not now.old:
            self._say("its old engines do not answer, and go on as they are", now)
        elif leaving is None:
            self._say("it would not fit without the old ones either, which go on as they are", now)
        elif now.changed <= self._changed_when_asked:
            await self._insist(now)
        else:
            await self._make_room(leaving, now)

    async def _make_room(self, leaving: Sequence[str], now: _Situation) -> None:
        """Have old engines stop when patience is at its end; until then, say so."""
        self._looks_in_vain += 1
        patience_s = PATIENCE_S if self._shortage(now.cluster) else PATIENCE_WITH_RAY_S
        some = f"{len(leaving)} of {len(now.old) + now.mute} old engines"
        if self._looks_in_vain * PERIOD_S < patience_s:
            self._say(
                f"unless that changes within {patience_s:g} s, {some} stop to make room, and are"
                " missing if it then fails to start",
                now,
            )
            return
        self._say(f"{some} finish what they have and stop to make room", now)
        self._looks_in_vain = 0
        self._asked, self._changed_when_asked = leaving, now.changed
        await self._ask_all("make_room", leaving)

    async def _insist(self, now: _Situation) -> None:
        """Room has been made, and no changed engine has come to run by it so far."""
        if not now.ids.isdisjoint(self._asked):
            await self._ask_all("make_room", self._asked)  # it may not have heard
            return
        self._looks_in_vain = 0 if now.is_loading else self._looks_in_vain + 1
        if now.is_loading:
            self._say("old engines go on until the changed one that is starting runs", now)
        elif self._looks_in_vain * PERIOD_S >= PATIENCE_S:
            where = (
                "the room made for it went to another model"
                if self._shortage(now.cluster)
                else "Ray finds no place although room was made for it"
            )
            self._say(f"{where}; no more old engines stop", now)

    def _say(self, plan: str, now: _Situation) -> None:
        if plan == self._plan:
            return
        self._plan = plan
        logger.warning("model %s: %s", self._entry["name"], self._sentence(now.cluster))

    async def _situation(self, cluster: Cluster, is_loading: bool) -> _Situation:
        answers = await self._ask_all("holding")
        prefix_index = [answer for answer in answers if not isinstance(answer, Exception)]
        old = [holding for holding in prefix_index if holding.get("version") != self._version]
        return _Situation(
            cluster=cluster,
            is_loading=is_loading,
            old=[ReplicaReservation(holding["replica"], holding["reserved"]) for holding in old],
            mute=len(answers) - len(prefix_index),
            changed=len(prefix_index) - len(old),
        )

    async def _ask_all(self, method: str, *args: object) -> Sequence[Any]:
        """What the engines that run answer, or raise; one that has just gone is left out."""
        response = self._engine.broadcast(method, *args)
        answers = await response.results_async(timeout_s=ANSWER_TIMEOUT_S, return_exceptions=True)
        return [answer for answer in answers if not isinstance(answer, _GONE)]
