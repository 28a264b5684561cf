"""Discovery of models and replicas from Serve's status and the replica feed."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ApplicationStatus, DeploymentStatusOverview

from deployments import discovery
from deployments.discovery import Discovery
from deployments.model_state import model_state
from deployments.serve_internals import replica_feed
from deployments.serve_internals.cluster_state import UNEXPLAINED_WAIT
from deployments.serve_internals.replica_feed import ReplicaFeed
from deployments.serve_internals.status import ServeStatus
from gateway.config.loopback import is_loopback
from gateway.config.serving_options import QueueOptions, ServingOptions
from gateway.routing.fleet import Fleet, ModelState
from tests.unit.conftest import PATIENCE_S

FACTS = {
    "engine": "sim",
    "routes": [],
    "kv_tokens": 1,
    "block_size": 1,
    "max_sequences": 1,
    "max_model_len": 1,
}


@dataclass
class FakeApplication:
    """A model's application, as Serve reports it."""

    model: str
    status: str = "RUNNING"
    deployed_s: float = 1.0
    fails: bool = False
    engines: int = 0
    """How many run."""
    model_status: str = "HEALTHY"
    """Of the deployment that holds its entry."""
    model_runs: bool = True
    is_built: bool = True
    """Serve tells its deployments."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What its entry says beside the name."""
    starting: int = 0
    """Engines that start."""
    wait_reason: str | None = ""
    """Why one of them waits for a place; None if nobody can tell."""
    engine_status: str = "HEALTHY"
    engine_message: str = ""
    before_wait_reason: Callable[[], Awaitable[object]] | None = None
    """What happens until it has told why one waits."""

    def remote(self) -> Any:
        """Answer the call for its entry, as a deployment handle does."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if self.fails:
            answer.set_exception(RuntimeError("its replica is gone"))
        else:
            answer.set_result({"name": self.model} | self.fields)
        return answer

    async def report_wait_reason(self) -> str:
        """Answer the call for why an engine waits."""
        if self.before_wait_reason is not None:
            await self.before_wait_reason()
        if self.wait_reason is None:
            raise RuntimeError("its replica is gone")
        return self.wait_reason

    @property
    def overview(self) -> Any:
        """Its part of Serve's status."""
        return SimpleNamespace(
            status=ApplicationStatus(self.status),
            last_deployed_time_s=self.deployed_s,
            deployments={}
            if not self.is_built
            else {
                "Model": engine(self.model_status, RUNNING=int(self.model_runs)),
                "Engine": engine(
                    self.engine_status,
                    self.engine_message,
                    RUNNING=self.engines,
                    STARTING=self.starting,
                ),
            },
        )


@dataclass
class FakeServe:
    """The parts of `ray.serve` that discovery uses."""

    applications: dict[str, FakeApplication] = field(default_factory=dict)

    def statuses(self) -> ServeStatus:
        """Serve's status."""
        return ServeStatus({name: app.overview for name, app in self.applications.items()})

    def get_app_handle(self, name: str) -> Any:
        """The handle of a `Model` deployment."""

        def remote() -> Any:
            return self.applications[name].remote()  # as it is at the time of the call

        return SimpleNamespace(
            entry=SimpleNamespace(remote=remote),
            wait_reason=SimpleNamespace(remote=self.applications[name].report_wait_reason),
        )

    def get_deployment_handle(self, _deployment: str, _app: str) -> Any:
        """The handle of an `Engine` deployment."""
        return SimpleNamespace(options=lambda **_: None)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> FakeServe:
    """Serve without applications."""
    fake = FakeServe()
    monkeypatch.setattr(discovery, "serve", fake)
    monkeypatch.setattr(discovery, "serve_status", fake.statuses)
    monkeypatch.setattr(replica_feed, "feed", ReplicaFeed())
    return fake


def running(name: str, model: str) -> Any:
    """A running replica, as Serve reports it."""
    metadata = {"model": model, "host": "h", "port": 1, "key": "k", "facts": FACTS}
    return SimpleNamespace(
        replica_id=SimpleNamespace(unique_id=name), replica_metadata=metadata, node_id="n"
    )


async def test_a_model_moves_to_another_application(serve: FakeServe) -> None:
    """The application is renamed in one deploy: the old one drains, the new one has the model."""
    fleet = Fleet()
    follower = Discovery(fleet)
    serve.applications = {"old": FakeApplication("x")}
    await follower.refresh()

    serve.applications["old"].status = "DELETING"
    serve.applications["new"] = FakeApplication("x", deployed_s=2)
    await follower.refresh()
    replica_feed.feed.publish("new", [running("r", "x")])
    replica_feed.feed.publish("old", [])
    await asyncio.sleep(0)
    del serve.applications["old"]
    await follower.refresh()

    assert list(fleet.model("x").replicas) == ["r"]


async def test_a_model_is_renamed_inside_its_application(serve: FakeServe) -> None:
    """During a deploy the old entry may still answer; it is read again."""
    fleet = Fleet()
    follower = Discovery(fleet)
    serve.applications = {"app": FakeApplication("x")}
    await follower.refresh()
    replica_feed.feed.publish("app", [running("r1", "x")])

    serve.applications["app"] = FakeApplication("x", status="DEPLOYING", deployed_s=2)
    await follower.refresh()
    serve.applications["app"] = FakeApplication("y", deployed_s=2)
    replica_feed.feed.publish("app", [running("r1", "x"), running("r2", "y")])
    await asyncio.sleep(0)
    await follower.refresh()

    assert not fleet.has("x")
    assert list(fleet.model("y").replicas) == ["r2"]


async def test_a_model_has_the_options_of_its_entry(serve: FakeServe) -> None:
    """Routing, queue and timeout are those of the entry, or the defaults."""
    fleet = Fleet()
    follower = Discovery(fleet)
    said = {"routing": {"policy": "round-robin"}, "queue": {"max_requests": 7}, "timeout_s": 90}
    serve.applications = {"app": FakeApplication("x", fields=said), "b": FakeApplication("y")}
    await follower.refresh()
    x, y = fleet.model("x"), fleet.model("y")
    said_of_x = [x.options.routing.policy, x.options.queue, x.options.timeout_s]
    serve.applications["app"] = FakeApplication("x", deployed_s=2)
    await follower.refresh()

    assert said_of_x == ["round-robin", QueueOptions(max_requests=7), 90]
    assert [model.options for model in (x, y)] == [ServingOptions()] * 2


async def test_an_application_missing_from_one_status_is_kept(serve: FakeServe) -> None:
    """A restarting controller leaves some out once; those still missing are removed."""
    fleet = Fleet()
    follower = Discovery(fleet)
    app = FakeApplication("x")
    serve.applications = {"app": app}
    await follower.refresh()

    known = []
    for applications in ({}, {"app": app}, {}, {}):
        serve.applications = applications
        await follower.refresh()
        known.append(fleet.has("x"))

    assert known == [True, True, True, False]


async def test_a_controller_that_hangs_is_asked_once(
    serve: FakeServe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Known models stay, the log has one line about it, and the late answer counts."""
    caplog.set_level("INFO", "ray.serve")
    fleet = Fleet()
    follower = Discovery(fleet)
    answered, asked = threading.Event(), []

    def statuses() -> ServeStatus:
        asked.append(1)
        answered.wait(PATIENCE_S)
        return serve.statuses()

    serve.applications = {"app": FakeApplication("x")}
    await follower.refresh()
    monkeypatch.setattr(discovery, "serve_status", statuses)
    monkeypatch.setattr(discovery, "STATUS_TIMEOUT_S", 0.02)
    monkeypatch.setattr(discovery, "SETTLING_PERIOD_S", 0.01)
    for _ in range(3):
        await follower.wait_until_complete(0.1)
    was_known, asks = fleet.has("x"), len(asked)
    serve.applications["new"] = FakeApplication("y")
    answered.set()
    while not fleet.has("y"):
        await follower.wait_until_complete(0.1)

    assert was_known
    assert asks == 1
    lines = [line for line in caplog.messages if line.startswith("Serve's status")]
    assert [line.split(":")[1][:14] for line in lines] == [" cannot be rea", " can be read a"]


async def test_one_unreadable_application_does_not_affect_the_others(serve: FakeServe) -> None:
    """Its entry is read again at the next poll; the other models are followed."""
    fleet = Fleet()
    follower = Discovery(fleet)
    serve.applications = {"bad": FakeApplication("x", fails=True), "good": FakeApplication("y")}
    await follower.refresh()
    without = fleet.has("x")
    serve.applications["bad"].fails = False
    await follower.refresh()

    assert not without
    assert fleet.has("x")
    assert fleet.has("y")


async def test_a_replica_with_unreadable_metadata_is_ignored(serve: FakeServe) -> None:
    """Other replicas of its model are used."""
    fleet = Fleet()
    follower = Discovery(fleet)
    serve.applications = {"app": FakeApplication("x")}
    await follower.refresh()
    strange = running("old", "x")
    strange.replica_metadata = {"model": "x"}
    replica_feed.feed.publish("app", [strange, running("new", "x")])
    await asyncio.sleep(0)

    assert list(fleet.model("x").replicas) == ["new"]


async def test_an_unknown_name_waits_for_models_being_deployed(serve: FakeServe) -> None:
    """An application whose entry cannot be read yet may have any name."""
    fleet = Fleet()
    follower = Discovery(fleet)
    serve.applications = {"app": FakeApplication("x", status="DEPLOYING", fails=True)}
    await follower.refresh()
    before = fleet.is_settled
    serve.applications["app"] = FakeApplication("x")
    await follower.refresh()

    assert not before
    assert fleet.is_settled


async def test_a_model_is_known_while_it_is_updated(serve: FakeServe) -> None:
    """A router that starts during a rolling update does not wait for its end."""
    fleet = Fleet()
    serve.applications = {"app": FakeApplication("x", status="DEPLOYING", model_status="UPDATING")}
    await Discovery(fleet).refresh()

    assert fleet.has("x")
    assert fleet.is_settled


async def test_a_new_router_waits_for_the_engines_that_run(serve: FakeServe) -> None:
    """It is ready when it knows them; engines that do not run are not awaited."""
    fleet = Fleet()
    serve.applications = {"app": FakeApplication("x", engines=1), "idle": FakeApplication("y")}
    catching_up = asyncio.create_task(Discovery(fleet).wait_until_complete(PATIENCE_S))
    await asyncio.sleep(0.05)
    is_early = catching_up.done()
    replica_feed.feed.publish("app", [running("r", "x")])
    await asyncio.wait_for(catching_up, PATIENCE_S / 2)

    assert not is_early
    assert list(fleet.model("x").replicas) == ["r"]


async def test_a_new_router_waits_for_what_serve_builds(serve: FakeServe) -> None:
    """A changed application runs while Serve builds it, and has no deployments in its status."""
    fleet = Fleet()
    changed = FakeApplication("x", status="DEPLOYING", is_built=False)
    serve.applications = {"app": changed}
    catching_up = asyncio.create_task(Discovery(fleet).wait_until_complete(PATIENCE_S))
    await asyncio.sleep(0.05)
    is_early, was_settled = catching_up.done(), fleet.is_settled
    changed.is_built = True
    await asyncio.wait_for(catching_up, PATIENCE_S / 2)

    assert not is_early
    assert not was_settled
    assert fleet.has("x")


async def test_a_new_router_does_not_wait_for_ever(serve: FakeServe) -> None:
    """An engine that is never reported delays it for a limited time only."""
    serve.applications = {"app": FakeApplication("x", engines=1)}
    await asyncio.wait_for(Discovery(Fleet()).wait_until_complete(0.05), PATIENCE_S)


def engine(status: str, message: str = "", **replicas: int) -> DeploymentStatusOverview:
    """Serve's status of an engine deployment."""
    overview: Any = DeploymentStatusOverview
    return overview(status=status, status_trigger="", replica_states=replicas, message=message)


@pytest.mark.parametrize(
    ("has_replicas", "application", "overview", "state"),
    [
        (True, "RUNNING", engine("HEALTHY", RUNNING=1), ModelState.READY),
        (True, "DEPLOYING", engine("UPDATING", RUNNING=1, STARTING=1), ModelState.READY),
        (False, "DEPLOYING", engine("UPDATING", STARTING=1), ModelState.STARTING),
        (False, "RUNNING", engine("UPSCALING", STARTING=1), ModelState.STARTING),
        (False, "DEPLOYING", engine("UPDATING"), ModelState.STARTING),
        (False, "RUNNING", engine("HEALTHY"), ModelState.SCALED_TO_ZERO),
        (False, "RUNNING", engine("DOWNSCALING", STOPPING=1), ModelState.SCALED_TO_ZERO),
        (False, "UNHEALTHY", engine("UNHEALTHY", STARTING=1), ModelState.STARTING),
        (False, "DEPLOY_FAILED", engine("DEPLOY_FAILED"), ModelState.UNHEALTHY),
    ],
)
def test_a_model_s_state_follows_serve_s_status(
    has_replicas: bool, application: str, overview: DeploymentStatusOverview, state: ModelState
) -> None:
    """The statuses of application, deployment and replicas give one state."""
    assert model_state(has_replicas, ApplicationStatus(application), overview)[0] is state


def test_a_failed_engine_that_is_being_replaced_says_so() -> None:
    """Clients learn whether to retry."""
    _, replaced = model_state(False, ApplicationStatus.UNHEALTHY, engine("UNHEALTHY", STARTING=1))
    _, failed = model_state(False, ApplicationStatus.DEPLOY_FAILED, engine("DEPLOY_FAILED"))

    assert "another one is starting" in replaced
    assert "serve status" in failed


LACK = "needs 1 GPU; none is free"
FAILED_START = "The deployment failed to start 1 times. Error:\nRuntimeError: no such weights"


@pytest.mark.parametrize(
    ("fields", "state", "reason"),
    [
        ({"wait_reason": LACK}, ModelState.STARTING, LACK),
        (
            {"wait_reason": LACK, "engine_status": "UNHEALTHY"},
            ModelState.STARTING,
            f"its engine failed, and another one is starting; {LACK}",
        ),
        (
            {"wait_reason": UNEXPLAINED_WAIT, "engine_status": "UNHEALTHY"},
            ModelState.STARTING,
            "its engine failed, and another one is starting",
        ),
        (
            {"wait_reason": UNEXPLAINED_WAIT, "engine_message": FAILED_START},
            ModelState.UNHEALTHY,
            "its engine does not start: no such weights",
        ),
        (
            {"wait_reason": LACK, "engine_message": FAILED_START},
            ModelState.UNHEALTHY,
            f"its engine does not start: no such weights; {LACK}",
        ),
        ({"wait_reason": UNEXPLAINED_WAIT}, ModelState.STARTING, UNEXPLAINED_WAIT),
        ({"wait_reason": ""}, ModelState.STARTING, "its engine is starting"),
        ({"wait_reason": None}, ModelState.STARTING, "its engine is starting"),
        ({"wait_reason": LACK, "model_runs": False}, ModelState.STARTING, "its engine is starting"),
    ],
)
async def test_a_model_whose_engine_waits_for_resources_has_the_reason(
    serve: FakeServe, fields: dict[str, Any], state: ModelState, reason: str
) -> None:
    """Models are asked for it only if they can answer."""
    fleet = Fleet()
    follower = Discovery(fleet)
    app = FakeApplication("x", starting=1)
    serve.applications = {"app": app}
    await follower.refresh()
    for name, value in fields.items():
        setattr(app, name, value)
    await follower.refresh()

    assert (fleet.model("x").state, fleet.model("x").reason) == (state, reason)


async def test_a_serving_model_says_what_another_engine_waits_for(serve: FakeServe) -> None:
    """Until the last engine has been placed."""
    fleet = Fleet()
    follower = Discovery(fleet)
    app = FakeApplication("x", engines=1, starting=1, wait_reason=LACK)
    serve.applications = {"app": app}
    await follower.refresh()
    replica_feed.feed.publish("app", [running("r", "x")])
    await asyncio.sleep(0)
    await follower.refresh()
    waiting = fleet.model("x").state, fleet.model("x").reason
    app.starting = 0
    await follower.refresh()

    assert waiting == (ModelState.READY, LACK)
    assert fleet.model("x").reason == ""


async def test_all_models_are_asked_for_their_reasons_concurrently(serve: FakeServe) -> None:
    """A slow answer delays no other model."""
    fleet = Fleet()
    all_asked = asyncio.Barrier(3)
    for name in "abc":
        app = FakeApplication(name, starting=1, wait_reason=LACK, before_wait_reason=all_asked.wait)
        serve.applications[name] = app
    await Discovery(fleet).refresh()

    assert [fleet.model(name).reason for name in "abc"] == [LACK] * 3


async def test_an_engine_that_comes_up_while_reasons_are_read_counts(serve: FakeServe) -> None:
    """A model's state is that of the moment when its reason is known."""
    fleet = Fleet()

    async def come_up() -> None:
        replica_feed.feed.publish("app", [running("r", "x")])
        await asyncio.sleep(0)

    serve.applications = {"app": FakeApplication("x", starting=1, before_wait_reason=come_up)}
    await Discovery(fleet).refresh()

    assert (fleet.model("x").state, fleet.model("x").reason) == (ModelState.READY, "")


def test_a_new_listener_gets_the_latest_replicas() -> None:
    """Serve may report replicas before the router has subscribed."""
    broadcasts, heard = ReplicaFeed(), list[Sequence[Any]]()
    first, second = [object()], [object(), object()]
    replicas: Any = broadcasts

    replicas.publish("app", first)
    replicas.subscribe("app", heard.append)
    replicas.publish("app", second)
    replicas.publish("other", first)
    replicas.unsubscribe("app")
    replicas.publish("app", [])

    assert heard == [first, second]


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        *(("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)),  # noqa: S104
        *(("10.0.0.1", False), ("node-1.example", False), ("", False)),
    ],
)
def test_only_loopback_addresses_count_as_local(host: str, is_local: bool) -> None:
    """A name that may mean any address counts as reachable."""
    assert is_loopback(host) == is_local


async def test_what_was_logged_of_an_application_is_forgotten_with_it(
    serve: FakeServe, caplog: pytest.LogCaptureFixture
) -> None:
    """Applications come and go; one that has the same trouble later says so again."""
    caplog.set_level("INFO", "ray.serve")
    follower = Discovery(Fleet())
    troubles = [
        FakeApplication("x", fails=True),
        FakeApplication("x", starting=1, wait_reason=None),
    ]
    for trouble in troubles * 2:
        serve.applications = {"app": trouble}
        for _ in range(2):
            await follower.refresh()
        serve.applications = {}
        for _ in range(2):
            await follower.refresh()

    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    error = "RuntimeError: its replica is gone"
    assert (
        warned
        == [
            f"application app: its entry cannot be read yet; trying again: {error}",
            f"model x: why no engine starts: cannot be found out: {error}",
        ]
        * 2
    )
    assert follower._logs == {}


async def test_what_was_logged_of_a_replica_is_forgotten_with_it(
    serve: FakeServe, caplog: pytest.LogCaptureFixture
) -> None:
    """Replicas come and go for as long as their application lives."""
    follower = Discovery(Fleet())
    serve.applications = {"app": FakeApplication("x")}
    await follower.refresh()
    unreadable = running("r", "x")
    unreadable.replica_metadata = {}
    for replicas in ([unreadable], [unreadable, running("s", "x")], [], [unreadable]):
        replica_feed.feed.publish("app", replicas)
        await asyncio.sleep(0)

    warned = [line for line in caplog.messages if line.startswith("replica r: ignored")]
    assert len(warned) == 2
