"""Rollover of a model's engines to a changed entry, also where both do not fit at once.

Serve starts changed engines beside the old ones (`MAX_SURGE_PERCENT` of them at once, at least one)
and stops an old one only when a changed one runs. Where the cluster has no room beside the old
engines, that would take for ever: then as many old ones as necessary stop. Each finishes the
requests it has; requests that no engine accepts meanwhile wait in the routers. An engine that is
retired fails its health check, upon which Serve 2.60 stops it gracefully and leaves the
deployment's health as it is: Serve has no other way to choose the replica that stops.

The room made may go to another model, and a changed engine may fail in it. So old engines are
retired once for each changed one that comes to run: whatever happens, the others stay in service.
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

from deployments.change_log import ChangeLog
from deployments.serve_internals.cluster_state import UNEXPLAINED_WAIT, read_cluster
from deployments.serve_internals.status import unplaced_replicas
from gateway.cluster.placement import plan_placement
from gateway.cluster.rollover import ReplicaReservation, replicas_to_stop
from gateway.cluster.shortage import Cluster, explain_shortage
from gateway.config.loader import parse_entry

POLL_PERIOD_S = 2.0
RETIRE_AFTER_S = 15.0
"""Time that a changed engine waits before old ones are retired for it: by then the autoscaler has
reported any node that it adds, and engines that were just stopped are gone."""
RETIRE_WITH_ROOM_AFTER_S = 60.0
"""That time if there should be room, and only Ray knows why it finds none."""
RETIRE_WITH_NODES_AFTER_S = 300.0
"""That time while nodes are being added: some never come."""
CALL_TIMEOUT_S = 10.0
_FINISHED = {"HEALTHY", "DEPLOY_FAILED"}
_GONE = (RayActorError, DeploymentUnavailableError)
_UNEXPLAINED_CHANGE = "waits for Ray to place it"

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class _Blocked:
    """State of a rollover in which a changed engine waits for resources."""

    cluster: Cluster
    is_loading: bool
    """Whether another changed engine has resources, and starts there."""
    old: Sequence[ReplicaReservation]
    unreadable: int
    """Engines that answer with an error: they count as old, and nothing else is known of them."""
    changed: int
    """Engines of the new version that run."""

    @property
    def ids(self) -> set[str]:
        """Ids of the old replicas."""
        return {holder.replica for holder in self.old}


class Rollover:
    """One change of a model's application, followed until no old engine is left to replace."""

    def __init__(
        self, entry: dict[str, JsonValue], version: str | None, engine: DeploymentHandle
    ) -> None:
        self._entry = entry
        self._version = version
        self._engine = engine
        self._placement = plan_placement(parse_entry(entry))
        self._blocked_polls = 0
        self._polls_with_nodes_coming = 0
        self._retired: Sequence[str] = ()
        """Old engines that were retired last."""
        self._changed_when_retired = -1
        self._plan = ""

    async def run(self) -> None:
        """Poll until the rollover is finished; a failed poll is logged and repeated."""
        app, deployment = self._engine.app_name, self._engine.deployment_name
        log = ChangeLog(logger)
        while True:
            await asyncio.sleep(POLL_PERIOD_S)
            try:
                status = await asyncio.to_thread(serve.status)
                if app not in status.applications:
                    continue  # the controller may be restarting
                overview = status.applications[app].deployments.get(deployment)
                if overview is None or overview.status in _FINISHED:
                    self._plan = ""
                    return
                await self._advance(overview)
            except Exception as error:  # noqa: BLE001 - the controller may be restarting
                line = f"its progress cannot be read; trying again: {error!r}"
                log.record(f"model {self._entry['name']}: rollover", line, logging.WARNING)

    async def wait_reason(self) -> str:
        """Why an engine waits for resources, and what is done about it; empty if none waits."""
        _, cluster = await asyncio.to_thread(self._unplaced)
        if cluster is None:
            return ""
        return (
            self._sentence(cluster) if self._plan else self._shortage(cluster) or UNEXPLAINED_WAIT
        )

    def _sentence(self, cluster: Cluster) -> str:
        return f"a changed engine {self._shortage(cluster) or _UNEXPLAINED_CHANGE}; {self._plan}"

    def _shortage(self, cluster: Cluster) -> str | None:
        return explain_shortage(self._placement, cluster)

    def _unplaced(self) -> tuple[int, Cluster | None]:
        """Number of engines without a node, and the cluster if Ray has found no place for one."""
        count = unplaced_replicas(self._engine.app_name, self._engine.deployment_name)
        cluster = read_cluster() if count else None
        return count, cluster if cluster and cluster.has_demand_for(self._placement) else None

    async def _advance(self, overview: DeploymentStatusOverview) -> None:
        states = overview.replica_states
        starting = states.get(ReplicaState.STARTING, 0)
        if starting and states.get(ReplicaState.STOPPING):
            self._blocked_polls = 0
            return  # room is being made
        unplaced, cluster = 0, None
        if starting and states.get(ReplicaState.RUNNING):
            unplaced, cluster = await asyncio.to_thread(self._unplaced)
        now = await self._read_engines(cluster, starting > unplaced) if cluster else None
        if now is None or not (now.old or now.unreadable):
            self._blocked_polls, self._polls_with_nodes_coming, self._plan = 0, 0, ""
            return
        await self._decide(now)

    async def _decide(self, now: _Blocked) -> None:
        waited_s = self._polls_with_nodes_coming * POLL_PERIOD_S
        if now.cluster.pending_nodes and waited_s < RETIRE_WITH_NODES_AFTER_S:
            self._polls_with_nodes_coming += 1
            minutes = RETIRE_WITH_NODES_AFTER_S / 60
            self._announce(
                f"old engines keep running meanwhile, for {minutes:g} minutes at most", now
            )
            return
        leaving = replicas_to_stop(self._placement, now.cluster, now.old)
        if not now.old:
            self._announce("its old engines do not answer, and keep running", now)
        elif leaving is None:
            self._announce("it would not fit without the old ones either, which keep running", now)
        elif now.changed <= self._changed_when_retired:
            await self._follow_up(now)
        else:
            await self._retire(leaving, now)

    async def _retire(self, leaving: Sequence[str], now: _Blocked) -> None:
        """Retire old engines when the wait is over; until then, announce it."""
        self._blocked_polls += 1
        after_s = RETIRE_AFTER_S if self._shortage(now.cluster) else RETIRE_WITH_ROOM_AFTER_S
        some = f"{len(leaving)} of {len(now.old) + now.unreadable} old engines"
        if self._blocked_polls * POLL_PERIOD_S < after_s:
            self._announce(
                f"unless that changes within {after_s:g} s, {some} stop to make room, and are"
                " missing if it then fails to start",
                now,
            )
            return
        self._announce(f"{some} finish their requests and stop to make room", now)
        self._blocked_polls = 0
        self._retired, self._changed_when_retired = leaving, now.changed
        await self._call_all("retire", leaving)

    async def _follow_up(self, now: _Blocked) -> None:
        """Handle a rollover that has made room in which no changed engine runs yet."""
        if not now.ids.isdisjoint(self._retired):
            await self._call_all("retire", self._retired)  # the call may have been lost
            return
        self._blocked_polls = 0 if now.is_loading else self._blocked_polls + 1
        if now.is_loading:
            self._announce(
                "old engines keep running until the changed one that is starting runs", now
            )
        elif self._blocked_polls * POLL_PERIOD_S >= RETIRE_AFTER_S:
            where = (
                "the room made for it went to another model"
                if self._shortage(now.cluster)
                else "Ray finds no place although room was made for it"
            )
            self._announce(f"{where}; no more old engines stop", now)

    def _announce(self, plan: str, now: _Blocked) -> None:
        if plan == self._plan:
            return
        self._plan = plan
        logger.warning("model %s: %s", self._entry["name"], self._sentence(now.cluster))

    async def _read_engines(self, cluster: Cluster, is_loading: bool) -> _Blocked:
        answers = await self._call_all("reservation")
        reservations = [answer for answer in answers if not isinstance(answer, Exception)]
        old = [each for each in reservations if each.get("version") != self._version]
        return _Blocked(
            cluster=cluster,
            is_loading=is_loading,
            old=[ReplicaReservation(each["replica"], each["reserved"]) for each in old],
            unreadable=len(answers) - len(reservations),
            changed=len(reservations) - len(old),
        )

    async def _call_all(self, method: str, *args: object) -> Sequence[Any]:
        """Answers or errors of the engines that run, without those that have just gone."""
        response = self._engine.broadcast(method, *args)
        answers = await response.results_async(timeout_s=CALL_TIMEOUT_S, return_exceptions=True)
        return [answer for answer in answers if not isinstance(answer, _GONE)]
