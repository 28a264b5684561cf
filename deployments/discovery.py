"""Discovery of models and replicas by a router: from Serve's status, and from `replica_feed`.

Models are applications whose ingress deployment is `Model`; they are found in Serve's status.
Replicas come from `PublishingRequestRouter`, which Serve makes in the router's process for each
model's `Engine` deployment and calls with every change.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import RunningReplica
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    ReplicaState,
)

from deployments.change_log import ChangeLog
from deployments.failed_builds import FailedBuilds
from deployments.model_state import FAILING, model_state
from deployments.serve_internals import replica_feed
from deployments.serve_internals.cluster_state import UNEXPLAINED_WAIT
from deployments.serve_internals.status import ServeStatus, serve_status
from gateway.config.serving_options import ServingOptions
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.telemetry.facts import ReplicaMetadata

MODEL_DEPLOYMENT = "Model"
ENGINE_DEPLOYMENT = "Engine"
POLL_PERIOD_S = 2.0
SETTLING_PERIOD_S = 0.25
"""Poll period while not all models are known, and requests for those are rejected."""
STATUS_TIMEOUT_S = 10.0
ENTRY_TIMEOUT_S = 5.0
WAIT_REASON_TIMEOUT_S = 2.0

_DEPLOYING = {ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING}

logger = logging.getLogger("ray.serve")


@dataclass(slots=True)
class _Application:
    """A model's application, as this router knows it."""

    name: str
    ingress: DeploymentHandle
    engine: DeploymentHandle
    model: ServedModel
    log: ChangeLog
    deployed_s: float = 0.0
    """Time of the deployment whose entry `model` has; 0 while that may still change."""
    running: Sequence[RunningReplica] = ()
    start_call: asyncio.Task[None] | None = None
    """Call that waits in Serve until an engine runs, while requests wait for one."""


class Discovery:
    """Keeps a router's fleet up to date with the cluster."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._applications: dict[str, _Application] = {}
        self._log = ChangeLog(logger)
        self._logs: dict[str, ChangeLog] = {}
        """What was logged of each application, as long as there is one of that name."""
        self._failed_builds = FailedBuilds(fleet)
        self._reading: asyncio.Task[ServeStatus] | None = None
        """Question for Serve's status that has not been answered."""
        self._missing: set[str] = set()
        """Known applications that were not in the last status."""
        self._running: Mapping[tuple[str, str], Collection[str]] = {}
        """Running replicas in the last status."""
        self._with_engines: set[str] = set()
        """Applications with running engines in the last status."""
        self._is_building = False
        """Whether Serve builds an application that is not known. It may run already: Serve does not
        tell its deployments until it has built its changed config."""

    def running(self, application: str, deployment: str) -> Collection[str]:
        """Ids of a deployment's replicas that ran when Serve's status was read last."""
        return self._running.get((application, deployment), ())

    async def run(self) -> None:
        """Poll Serve's status until cancelled; a failed poll is logged and repeated."""
        try:
            while True:
                await self._poll()
                is_settled = self._fleet.is_settled
                await asyncio.sleep(POLL_PERIOD_S if is_settled else SETTLING_PERIOD_S)
        finally:
            for app in self._applications.values():
                _cancel_start(app)
            if self._reading is not None:
                self._reading.cancel()

    async def wait_until_complete(self, timeout_s: float) -> None:
        """Poll until every running engine is known, or `timeout_s` seconds have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (await self._poll() and self._is_complete()):  # noqa: ASYNC110 - Serve has no event for it
                    await asyncio.sleep(SETTLING_PERIOD_S)

    async def _poll(self) -> bool:
        """Poll once; False if Serve's status could not be read."""
        try:
            await self.refresh()
        except Exception as error:  # noqa: BLE001 - the controller may be restarting
            line = f"cannot be read; all known models and replicas stay in service: {_brief(error)}"
            self._log.record("Serve's status", line, logging.WARNING)
            return False
        self._log.record_end("Serve's status", "can be read again")
        return True

    def _is_complete(self) -> bool:
        """Whether every running engine is known."""
        return not self._is_building and all(
            name in self._applications and self._applications[name].model.replicas
            for name in self._with_engines
        )

    async def refresh(self) -> None:
        """Read Serve's status, and update the fleet."""
        status = await self._read_status()
        applications, self._running = status.applications, status.running
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
        # A controller that is restarting or deploying may leave out running applications once.
        for gone in (self._applications.keys() & deleting) | (missing & self._missing):
            self._forget(gone)
        self._missing = missing
        for gone in self._logs.keys() - applications.keys() - self._applications.keys():
            del self._logs[gone]
        self._failed_builds.update(status.failed_builds)
        followed: list[tuple[_Application, ApplicationStatusOverview]] = []
        for name, overview in found.items():
            try:
                if app := await self._follow(name, overview):
                    followed.append((app, overview))
            except Exception as error:  # noqa: BLE001 - it may be about to be replaced
                line = f"its entry cannot be read yet; trying again: {_brief(error)}"
                self._log_of(name).record(f"application {name}", line, logging.WARNING)
            else:
                self._log_of(name).record_end(f"application {name}", "its entry has been read")
        await self._update_states(followed)
        self._with_engines = {
            name for name, overview in found.items() if _runs(overview, ENGINE_DEPLOYMENT)
        }
        unknown = {n: o for n, o in applications.items() if n not in self._applications}
        deploying = {name for name, o in unknown.items() if o.status in _DEPLOYING}
        self._is_building = any(not unknown[name].deployments for name in deploying)
        self._fleet.is_settled = not self._is_building and deploying.isdisjoint(found)

    async def _read_status(self) -> ServeStatus:
        """Serve's status. A controller that hangs is asked once: a thread waits for its answer.

        Raises:
            TimeoutError: it has not answered yet.
        """
        reading = self._reading or asyncio.create_task(asyncio.to_thread(serve_status))
        self._reading = reading
        async with asyncio.timeout(STATUS_TIMEOUT_S):
            await asyncio.wait([reading])
        self._reading = None
        return reading.result()

    def request_start(self, model: ServedModel, waiting: int) -> None:
        """Have Serve start an engine of a model while `waiting` requests wait for one.

        One call that waits in Serve is enough: at zero replicas it starts one engine.
        """
        for app in self._applications.values():
            if app.model is not model:
                continue
            if not waiting:
                _cancel_start(app)
            elif app.start_call is None or app.start_call.done():
                app.start_call = asyncio.create_task(_start_engine(app))

    async def _follow(self, name: str, overview: ApplicationStatusOverview) -> _Application | None:
        app = self._applications.get(name)
        if app is None or app.deployed_s != overview.last_deployed_time_s:
            if not _runs(overview, MODEL_DEPLOYMENT):
                return None  # its entry cannot be read yet
            app = await self._read(name, overview)
        if not self._fleet.has_model(app.model.name):
            self._fleet.add(app.model)  # another application of that name has gone
        return app

    async def _read(self, name: str, overview: ApplicationStatusOverview) -> _Application:
        """Read the entry of a new or changed application, and subscribe to its replicas.

        While Serve is still deploying, the answer may come from the replica about to be replaced:
        it is read again at the next poll.
        """
        app = self._applications.get(name) or await self._connect(name, overview)
        async with asyncio.timeout(ENTRY_TIMEOUT_S):
            entry = await app.ingress.entry.remote()
        if entry["name"] != app.model.name:
            _cancel_start(app)
            self._fleet.remove(app.model)
            app.log.forget(*_logged_of(app.model))
            app.model = ServedModel(entry["name"], created_s=int(overview.last_deployed_time_s))
        app.model.deployed_s = overview.last_deployed_time_s
        app.model.options = ServingOptions.model_validate(entry)
        if name not in self._applications:
            self._applications[name] = app
            self._subscribe(app)
        self._apply_replicas(app, app.running)
        app.deployed_s = 0.0 if overview.status in _DEPLOYING else overview.last_deployed_time_s
        return app

    async def _connect(self, name: str, overview: ApplicationStatusOverview) -> _Application:
        return _Application(
            name=name,
            ingress=await asyncio.to_thread(serve.get_app_handle, name),
            engine=await asyncio.to_thread(serve.get_deployment_handle, ENGINE_DEPLOYMENT, name),
            model=ServedModel("", created_s=int(overview.last_deployed_time_s)),
            log=self._log_of(name),
        )

    def _subscribe(self, app: _Application) -> None:
        loop = asyncio.get_running_loop()

        def listener(running: Sequence[RunningReplica]) -> None:
            # Serve may run its request routers on a loop of their own.
            loop.call_soon_threadsafe(self._apply_replicas, app, list(running))

        replica_feed.feed.subscribe(app.name, listener)
        replica_feed.start_request_router(app.engine)

    def _apply_replicas(self, app: _Application, running: Sequence[RunningReplica]) -> None:
        """Update the fleet with the replicas that run the application's model under its name."""
        gone = {each.replica_id.unique_id for each in app.running}
        for name in gone.difference(each.replica_id.unique_id for each in running):
            app.log.forget(f"replica {name}")
        app.running = running
        found = [_to_replica(each, app.log) for each in running]
        replicas = [replica for replica in found if replica is not None]
        mine = [r for r in replicas if r.metadata.model == app.model.name]
        known = app.model.replicas.keys()
        self._fleet.replace_replicas(app.model, mine)
        if app.model.replicas.keys() != known:
            count = len(app.model.replicas)
            logger.info("model %s: %d replica%s", app.model.name, count, "s" * (count != 1))

    def _log_of(self, name: str) -> ChangeLog:
        return self._logs.setdefault(name, ChangeLog(logger))

    def _forget(self, name: str) -> None:
        replica_feed.feed.unsubscribe(name)
        app = self._applications.pop(name)
        _cancel_start(app)
        self._fleet.remove(app.model)
        self._logs.pop(name, None)
        logger.info("model %s: gone", app.model.name)

    async def _update_states(
        self, followed: Sequence[tuple[_Application, ApplicationStatusOverview]]
    ) -> None:
        """Set each model's state; those with an engine that may wait for resources say why."""
        asked = [(app, overview) for app, overview in followed if _may_wait(overview)]
        for app, overview in followed:
            if not _may_wait(overview):
                self._set_state(app, overview)
        reasons = await asyncio.gather(*(self._wait_reason(app) for app, _ in asked))
        for (app, overview), wait_reason in zip(asked, reasons, strict=True):
            self._set_state(app, overview, wait_reason)

    def _set_state(
        self, app: _Application, overview: ApplicationStatusOverview, wait_reason: str = ""
    ) -> None:
        """Set a model's state and its reason; a failure comes before what an engine waits for."""
        model, engine = app.model, overview.deployments[ENGINE_DEPLOYMENT]
        state, reason = model_state(bool(model.replicas), overview.status, engine)
        has_failed = state is ModelState.UNHEALTHY or bool(reason and engine.status in FAILING)
        if has_failed and wait_reason:
            reason = reason if wait_reason == UNEXPLAINED_WAIT else f"{reason}; {wait_reason}"
        model.state, model.reason = state, reason if has_failed else wait_reason or reason
        line = f"{model.condition}: {model.reason}" if model.reason else model.condition
        app.log.record(_logged_of(model)[0], line)

    async def _wait_reason(self, app: _Application) -> str:
        """Why an engine of the application waits for resources; empty also if unknown."""
        thing = _logged_of(app.model)[2]
        try:
            async with asyncio.timeout(WAIT_REASON_TIMEOUT_S):
                reason = str(await app.ingress.wait_reason.remote())
        except Exception as error:  # noqa: BLE001 - its Model replica may be restarting
            app.log.record(thing, f"cannot be found out: {_brief(error)}", logging.WARNING)
            return ""
        app.log.record_end(thing, "can be found out again")
        return reason


def _to_replica(running: RunningReplica, log: ChangeLog) -> Replica | None:
    """The replica as the fleet knows it; None, and a log line, if that cannot be read."""
    name = running.replica_id.unique_id
    try:
        metadata = msgspec.convert(running.replica_metadata, ReplicaMetadata)
    except msgspec.ValidationError as error:
        line = f"ignored: its metadata is of another version of the gateway ({error})"
        log.record(f"replica {name}", line, logging.WARNING)
        return None
    return Replica(id=name, metadata=metadata, node_id=running.node_id)


async def _start_engine(app: _Application) -> None:
    response, thing = app.ingress.start_engine.remote(), _logged_of(app.model)[1]
    try:
        await response
    except asyncio.CancelledError:
        response.cancel()  # or it would go on waiting in Serve
        raise
    except Exception as error:  # noqa: BLE001 - the controller may be restarting
        line = f"no engine could be started; trying again: {_brief(error)}"
        app.log.record(thing, line, logging.WARNING)
        await asyncio.sleep(POLL_PERIOD_S)
    else:
        app.log.record_end(thing, "an engine runs")


def _cancel_start(app: _Application) -> None:
    if app.start_call is not None:
        app.start_call.cancel()


def _logged_of(model: ServedModel) -> tuple[str, str, str]:
    """The things that are logged of a model: its state, starts that fail, and unknown reasons."""
    thing = f"model {model.name}"
    return thing, f"start of {thing}", f"{thing}: why no engine starts"


def _may_wait(overview: ApplicationStatusOverview) -> bool:
    is_starting = overview.deployments[ENGINE_DEPLOYMENT].replica_states.get(ReplicaState.STARTING)
    return bool(is_starting) and _runs(overview, MODEL_DEPLOYMENT)


def _runs(overview: ApplicationStatusOverview, deployment: str) -> bool:
    count: int = overview.deployments[deployment].replica_states.get(ReplicaState.RUNNING, 0)
    return count > 0


def _brief(error: Exception) -> str:
    """An error in one line: Ray's hold the traceback of another process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
