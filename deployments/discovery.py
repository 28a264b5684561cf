"""How a router learns which models and replicas exist: Serve's status, and Serve's own broadcasts.

Models are applications whose ingress deployment is `Model`; they are found in Serve's status.
Replicas come from `request_router.FleetRequestRouter`, which Serve makes in the router's process
for each model's `Engine` deployment and calls with every change.
"""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from ray import serve
from ray.serve.context import _get_global_client as get_serve_client
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import RunningReplica
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ReplicaState,
)

from deployments import broadcasts
from deployments.failures import start_failure
from deployments.shortage import UNEXPLAINED
from deployments.statuses import application_statuses
from gateway.config.serving_options import ServingOptions
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.telemetry import ReplicaMetadata

ANY = "0.0.0.0"  # noqa: S104 - Serve's own default
MODEL_DEPLOYMENT = "Model"
ENGINE_DEPLOYMENT = "Engine"
POLL_PERIOD_S = 2.0
SETTLING_PERIOD_S = 0.25
"""The same while not all models are known, and requests for them are turned away."""
ENTRY_TIMEOUT_S = 5.0
LACK_TIMEOUT_S = 2.0

_COMING_UP = {ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING}
_FAILING = {"UNHEALTHY", "DEPLOY_FAILED"}
_GOING = {ReplicaState.STOPPING, ReplicaState.STOPPED}

logger = logging.getLogger("ray.serve")


@dataclass(slots=True)
class _Application:
    """A model application this router follows."""

    name: str
    ingress: DeploymentHandle
    engine: DeploymentHandle
    model: ServedModel
    deployed_s: float = 0.0
    """The deployment whose entry `model` has; 0 while that may still change."""
    running: Sequence[RunningReplica] = ()
    wake: asyncio.Task[None] | None = None
    """The call that waits in Serve for an engine, if one is wanted."""


class Discovery:
    """Keeps a fleet in step with the cluster."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._applications: dict[str, _Application] = {}
        self._missing: set[str] = set()
        """Applications we follow that the last look did not show."""
        self._with_engines: set[str] = set()
        """Applications whose engines run, at the last look."""

    async def run(self) -> None:
        """Follow the cluster until cancelled; a failed look is logged and tried again."""
        try:
            while True:
                await self._look()
                is_settled = self._fleet.is_settled
                await asyncio.sleep(POLL_PERIOD_S if is_settled else SETTLING_PERIOD_S)
        finally:
            for app in self._applications.values():
                _let_sleep(app)

    async def catch_up(self, timeout_s: float) -> None:
        """Look until every engine that runs is known, or `timeout_s` seconds have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (await self._look() and self._knows_all()):  # noqa: ASYNC110 - Serve tells of no event
                    await asyncio.sleep(SETTLING_PERIOD_S)

    async def _look(self) -> bool:
        """Look at Serve's status; whether that could be read."""
        try:
            await self.refresh()
        except Exception:
            # The controller may be restarting: what is known stays in service.
            logger.exception("could not read Serve's status; keeping the fleet as it is")
            return False
        return True

    def _knows_all(self) -> bool:
        """Whether every engine that runs is known."""
        return all(
            name in self._applications and self._applications[name].model.replicas
            for name in self._with_engines
        )

    async def refresh(self) -> None:
        """One look at Serve's status."""
        applications = await asyncio.to_thread(application_statuses)
        deleting = {
            name
            for name, overview in applications.items()
            if overview.status == ApplicationStatus.DELETING
        }
        found = {
            name: overview
            for name, overview in applications.items()
            if {MODEL_DEPLOYMENT, ENGINE_DEPLOYMENT} <= overview.deployments.keys()
            and name not in deleting
        }
        missing = self._applications.keys() - applications.keys()
        # A controller that is restarting, or deploying, may leave out for a moment what goes on.
        for gone in (self._applications.keys() & deleting) | (missing & self._missing):
            self._forget(gone)
        self._missing = missing
        followed: list[tuple[_Application, ApplicationStatusOverview]] = []
        for name, overview in found.items():
            try:
                if app := await self._follow(name, overview):
                    followed.append((app, overview))
            except Exception:
                logger.exception("could not follow application %s; the others go on", name)
        await _judge(followed)
        self._with_engines = {
            name for name, overview in found.items() if _runs(overview, ENGINE_DEPLOYMENT)
        }
        unread = (o.status for name, o in found.items() if name not in self._applications)
        self._fleet.is_settled = _COMING_UP.isdisjoint(unread)

    def wake(self, model: ServedModel, waiting: int) -> None:
        """Have Serve start an engine while requests wait for one of a model.

        One call that waits in Serve is enough: at zero it starts one engine, whatever waits.
        """
        for app in self._applications.values():
            if app.model is not model:
                continue
            if not waiting:
                _let_sleep(app)
            elif app.wake is None or app.wake.done():
                app.wake = asyncio.create_task(_wake(app))

    async def _follow(self, name: str, overview: ApplicationStatusOverview) -> _Application | None:
        app = self._applications.get(name)
        if app is None or app.deployed_s != overview.last_deployed_time_s:
            if not _runs(overview, MODEL_DEPLOYMENT):
                return None  # nobody can be asked for its entry
            app = await self._read(name, overview)
        if not self._fleet.has_model(app.model.name):
            self._fleet.add(app.model)  # another application of that name has gone
        return app

    async def _read(self, name: str, overview: ApplicationStatusOverview) -> _Application:
        """Ask a new or changed application for its entry, and listen to its replicas.

        While Serve is still deploying, the answer may come from the replica about to be replaced:
        it holds until the next look only.
        """
        app = self._applications.get(name) or await self._meet(name, overview)
        async with asyncio.timeout(ENTRY_TIMEOUT_S):
            entry = await app.ingress.entry.remote()
        if entry["name"] != app.model.name:
            _let_sleep(app)
            self._fleet.remove(app.model)
            app.model = ServedModel(entry["name"], created_s=int(overview.last_deployed_time_s))
        app.model.deployed_s = overview.last_deployed_time_s
        app.model.options = ServingOptions.model_validate(entry)
        if name not in self._applications:
            self._applications[name] = app
            self._listen(app)
        self._hear(app, app.running)
        app.deployed_s = 0.0 if overview.status in _COMING_UP else overview.last_deployed_time_s
        return app

    async def _meet(self, name: str, overview: ApplicationStatusOverview) -> _Application:
        return _Application(
            name=name,
            ingress=await asyncio.to_thread(serve.get_app_handle, name),
            engine=await asyncio.to_thread(serve.get_deployment_handle, ENGINE_DEPLOYMENT, name),
            model=ServedModel("", created_s=int(overview.last_deployed_time_s)),
        )

    def _listen(self, app: _Application) -> None:
        loop = asyncio.get_running_loop()

        def listener(running: Sequence[RunningReplica]) -> None:
            # Serve may run its request routers on a loop of their own.
            loop.call_soon_threadsafe(self._hear, app, list(running))

        broadcasts.replicas.subscribe(app.name, listener)
        app.engine.options(method_name="wake")  # makes Serve start the request router

    def _hear(self, app: _Application, running: Sequence[RunningReplica]) -> None:
        """Take over the replicas that run the application's model as it is named now."""
        app.running = running
        replicas = [replica for replica in map(_replica, running) if replica is not None]
        mine = [r for r in replicas if r.metadata.model == app.model.name]
        self._fleet.replace_replicas(app.model, mine)
        logger.info("model %s: %d replicas", app.model.name, len(mine))

    def _forget(self, name: str) -> None:
        broadcasts.replicas.unsubscribe(name)
        app = self._applications.pop(name)
        _let_sleep(app)
        self._fleet.remove(app.model)


async def _wake(app: _Application) -> None:
    response = app.ingress.wake.remote()
    try:
        await response
    except asyncio.CancelledError:
        response.cancel()  # or it would go on waiting in Serve
        raise
    except Exception:
        logger.exception("waking %s failed", app.model.name)
        await asyncio.sleep(POLL_PERIOD_S)


def _let_sleep(app: _Application) -> None:
    if app.wake is not None:
        app.wake.cancel()


async def _judge(followed: Sequence[tuple[_Application, ApplicationStatusOverview]]) -> None:
    """Say how each model stands; those with an engine that may wait for a place are asked why."""
    asked = [(app, overview) for app, overview in followed if _may_lack(overview)]
    for app, overview in followed:
        if not _may_lack(overview):
            _state(app, overview)
    lacks = await asyncio.gather(*(_lack(app) for app, _ in asked))
    for (app, overview), lack in zip(asked, lacks, strict=True):
        _state(app, overview, lack)


def _may_lack(overview: ApplicationStatusOverview) -> bool:
    is_starting = overview.deployments[ENGINE_DEPLOYMENT].replica_states.get(ReplicaState.STARTING)
    return bool(is_starting) and _runs(overview, MODEL_DEPLOYMENT)


def _state(app: _Application, overview: ApplicationStatusOverview, lack: str = "") -> None:
    """Say how a model stands; a failure comes before what an engine lacks, if that is known."""
    model, engine = app.model, overview.deployments[ENGINE_DEPLOYMENT]
    state, reason = model_state(bool(model.replicas), overview.status, engine)
    has_failed = state is ModelState.UNHEALTHY or bool(reason and engine.status in _FAILING)
    if has_failed and lack:
        reason = reason if lack == UNEXPLAINED else f"{reason}; {lack}"
    model.state, model.reason = state, reason if has_failed else lack or reason


async def _lack(app: _Application) -> str:
    """Why an engine of the application waits for a place; empty also if nobody can tell."""
    try:
        async with asyncio.timeout(LACK_TIMEOUT_S):
            return str(await app.ingress.lack.remote())
    except Exception:
        logger.exception("could not learn why no engine of %s starts", app.model.name)
        return ""


def _runs(overview: ApplicationStatusOverview, deployment: str) -> bool:
    count: int = overview.deployments[deployment].replica_states.get(ReplicaState.RUNNING, 0)
    return count > 0


def listens_on_loopback() -> bool:
    """Whether Serve's HTTP servers can be reached from this machine only."""
    # No public name in Ray 2.60 tells a replica the HTTP options.
    return is_loopback(get_serve_client().http_config.host or ANY)


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine's loopback for certain."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # another name, which may mean any address


def _replica(running: RunningReplica) -> Replica | None:
    """One replica as the fleet knows it; None, and a line in the log, for what cannot be read."""
    name = running.replica_id.unique_id
    try:
        metadata = msgspec.convert(running.replica_metadata, ReplicaMetadata)
    except msgspec.ValidationError as error:
        logger.warning("replica %s speaks another language, leaving it alone: %s", name, error)
        return None
    return Replica(id=name, metadata=metadata, node_id=running.node_id)


def model_state(
    has_replicas: bool, application: ApplicationStatus, engine: DeploymentStatusOverview
) -> tuple[ModelState, str]:
    """A model's state and, in words a client may read, the reason."""
    if has_replicas:
        return ModelState.READY, ""
    is_coming = any(n for state, n in engine.replica_states.items() if state not in _GOING)
    is_failing = application == ApplicationStatus.DEPLOY_FAILED or engine.status in _FAILING
    failure = start_failure(engine.message) if is_failing or is_coming else ""
    if failure:
        return ModelState.UNHEALTHY, f"its engine does not start: {failure}"
    if is_failing:
        if is_coming:
            return ModelState.STARTING, "its engine failed, and another one is starting"
        return ModelState.UNHEALTHY, "its engine failed; `serve status` tells the operator why"
    if is_coming or engine.status in {"UPDATING", "UPSCALING"}:
        return ModelState.STARTING, "its engine is starting"
    return ModelState.SCALED_TO_ZERO, "no engine runs until a request wants one"
