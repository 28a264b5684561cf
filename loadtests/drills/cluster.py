"""A cluster as docs/production.md has it: Redis, a head without engines, workers, a balancer."""

import contextlib
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from deployments.local import processes
from gateway.environment import AUTH_MODE, AUTH_TOKEN, installed_haproxy, recommended
from loadtests import launch
from loadtests.drills.balancer import balancer
from loadtests.drills.machines import GATEWAY_ADDRESS, Machine, network
from loadtests.launch import Unavailable
from loadtests.targets import Document, serve_config

MODEL = "sim"
WORKERS = 3
ENGINES = 4
ROUTERS = 2
MODELS = 1
"""Replicas of deployments `Model`, which run on any node."""
GCS_PORT, DASHBOARD_PORT, GATEWAY_PORT = 6379, 8265, 8000
OBJECT_STORE_BYTES = 80 * 1024 * 1024
APPLICATIONS = "/api/serve/applications/"
NODES = "/api/v0/nodes"
DASHBOARD_TIMEOUT_S = 5.0
DEPLOY_TIMEOUT_S = 120.0
"""The answer waits until Serve's controller has started."""
START_TIMEOUT_S = 180.0
LOG_CHARACTERS = 800


def config() -> Document:
    """The Serve config: engines and routers on whichever workers there are."""
    entry = {
        "name": MODEL,
        "engine": "sim",
        "replicas": ENGINES,
        "drain_timeout_s": 30,
        "simulation": {"max_sequences": 16},
    }
    document = serve_config(GATEWAY_PORT, entry)
    document["http_options"]["host"] = "0.0.0.0"  # noqa: S104 - each node has an address of its own
    (router,) = document["applications"][0]["deployments"]
    router |= {"num_replicas": ROUTERS, "max_replicas_per_node": 1}
    router["user_config"] = {"auth": "none"}
    return document


class DrillCluster:
    """A running cluster, and a port of this machine at which its balancer answers."""

    def __init__(self, head: Machine, workers: list[Machine], token: str, port: int) -> None:
        self.head = head
        self.workers = workers
        self.port = port
        self._token = token

    @property
    def environment(self) -> dict[str, str]:
        """Variables that Ray's commands need."""
        return {AUTH_MODE: "token", AUTH_TOKEN: self._token}

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{launch.HOST}:{self.port}"

    @property
    def logs(self) -> str:
        """The last that the services of all machines have printed."""
        machines = [self.head, *self.workers]
        return "\n".join(f"{each.name}: {each.log[-LOG_CHARACTERS:]}" for each in machines)

    def deploy(self, document: Document) -> None:
        """Deploy a config."""
        self._ask("PUT", APPLICATIONS, document, DEPLOY_TIMEOUT_S).raise_for_status()

    def applications(self) -> dict[str, Any]:
        """Applications by name, as Serve's controller tells of them; none while it does not."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = self._ask("GET", APPLICATIONS)
            if answer.status_code == 200:
                return dict(answer.json()["applications"])
        return {}

    def is_whole(self) -> bool:
        """Whether everything is deployed, and all replicas run, by what the controller knows."""
        applications = self.applications()
        return bool(applications) and all(
            each["status"] == "RUNNING" for each in applications.values()
        )

    def replicas(self) -> dict[str, str]:
        """The node of each running replica, by its id."""
        return {
            replica["replica_id"]: replica["node_ip"]
            for application in self.applications().values()
            for deployment in application["deployments"].values()
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING"
        }

    def live_nodes(self) -> dict[str, str]:
        """Ray's id of each living node, by its address; none while the head does not answer."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = self._ask("GET", NODES)
            if answer.status_code == 200:
                rows = answer.json()["data"]["result"]["result"]
                return {row["node_ip"]: row["node_id"] for row in rows if row["state"] == "ALIVE"}
        return {}

    def _ask(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        timeout_s: float = DASHBOARD_TIMEOUT_S,
    ) -> httpx.Response:
        return httpx.request(
            method,
            f"http://{self.head.address}:{DASHBOARD_PORT}{path}",
            json=body,
            headers={"authorization": f"Bearer {self._token}"},
            timeout=timeout_s,
        )


@contextmanager
def drill_cluster() -> Iterator[DrillCluster]:
    """A cluster whose engines are simulated, ready for requests.

    Raises:
        Unavailable: it cannot be started; the message says why.
    """
    if shutil.which("redis-server") is None:
        raise Unavailable("drills need redis-server, which keeps the state of the cluster's head")
    token = secrets.token_hex(32)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drills-")))
        stack.enter_context(network())
        stored = stack.enter_context(_redis(folder))
        head = stack.enter_context(Machine("head", 2, folder))
        workers = [
            stack.enter_context(Machine(f"worker{number}", 2 + number, folder))
            for number in range(1, WORKERS + 1)
        ]
        environment = recommended(installed_haproxy()) | {AUTH_TOKEN: token}
        port = processes.free_port()
        cluster = DrillCluster(head, workers, token, port)
        try:
            head.serve(_ray_start(head, "--head", *_head_options()), {**environment, **stored})
            wait_for(lambda: head.address in cluster.live_nodes(), START_TIMEOUT_S)
            for worker in workers:
                joins = ["--address", f"{head.address}:{GCS_PORT}", "--num-cpus", "4"]
                worker.serve(_ray_start(worker, *joins), environment)
                joined = partial(_has_joined, cluster, worker)
                wait_for(joined, START_TIMEOUT_S)
            nodes = [f"{worker.address}:{GATEWAY_PORT}" for worker in workers]
            stack.enter_context(balancer(port, nodes))
            cluster.deploy(config())
            wait_for(cluster.is_whole, START_TIMEOUT_S)
            wait_for(lambda: not launch.chat_failure(port, MODEL), START_TIMEOUT_S)
        except (TimeoutError, httpx.HTTPError) as error:
            raise Unavailable(
                f"the cluster did not start: {error!r}\n{cluster.applications()}\n{cluster.logs}"
            ) from None
        yield cluster


@contextmanager
def _redis(folder: Path) -> Iterator[dict[str, str]]:
    """Redis, and the variables by which the head keeps its state there."""
    port = processes.free_port()
    options = ["--bind", GATEWAY_ADDRESS, "--save", "", "--dir", str(folder)]
    with launch.running(["redis-server", "--port", str(port), *options, "--protected-mode", "no"]):
        address = f"{GATEWAY_ADDRESS}:{port}"
        yield {"RAY_REDIS_ADDRESS": address, "RAY_external_storage_namespace": "drills"}


def _ray_start(machine: Machine, *options: str) -> list[str]:
    ray = str(Path(sys.executable).with_name("ray"))
    alike = ["--block", "--num-gpus", "0", "--object-store-memory", str(OBJECT_STORE_BYTES)]
    return [ray, "start", "--node-ip-address", machine.address, *alike, *options]


def _head_options() -> list[str]:
    ports = ["--port", str(GCS_PORT), "--dashboard-port", str(DASHBOARD_PORT)]
    return [*ports, "--dashboard-host", "0.0.0.0", "--num-cpus", "0"]  # noqa: S104 - in its namespace


def _has_joined(cluster: DrillCluster, worker: Machine) -> bool:
    return worker.address in cluster.live_nodes()


def wait_for(condition: Callable[[], object], timeout_s: float) -> float:
    """Seconds until a condition held.

    Raises:
        TimeoutError: it did not in time.
    """
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            raise TimeoutError
        launch.pause()
    return time.monotonic() - began_s
