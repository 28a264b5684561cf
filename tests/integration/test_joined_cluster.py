"""`gateway serve --address`: a gateway on a cluster that `ray start` has started."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from deployments.local import processes, temporary
from deployments.local.private_files import ensure_token
from deployments.local.run import environment
from gateway.environment import CLUSTER_ON_LOOPBACK
from tests.gateway_process import (
    ROOT,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    document,
    gateway_application,
    model_application,
    wait_for,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),  # a cluster is started, and joined three times
]

SIM = model_application(name="sim", engine="sim", simulation={"instant": True})
END_TIMEOUT_S = 10
"""After which what is left of Ray is killed: `ray start --block` waits for what it started."""
RAY = "from ray.scripts.scripts import main; main()"


@dataclass(frozen=True)
class StartedCluster:
    """A cluster of one node."""

    address: str
    environ: Mapping[str, str]
    """What it was started with."""
    session: processes.Session


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedCluster]:
    """A cluster that runs nothing yet, started in the recommended environment."""
    ensure_token(os.environ)
    port, dashboard = processes.free_port(), processes.free_port()
    directory, log = temporary.make_directory(), tmp_path_factory.mktemp("ray") / "log"
    environ = {**os.environ, **environment(), **temporary.variables(directory)}
    options = ["--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    with log.open("w") as output:
        leader = subprocess.Popen(
            [sys.executable, "-c", RAY, "start", *options, "--disable-usage-stats"],
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    session = processes.Session.led_by(leader.pid, str(directory))
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text(), START_TIMEOUT_S)
        yield StartedCluster(f"127.0.0.1:{port}", environ, session)
    finally:
        processes.end(session.members, END_TIMEOUT_S)
        leader.wait()
        temporary.remove(directory, Path(tempfile.gettempdir()) / "none")


def serve(cluster: StartedCluster, config: Path, port: int, log: Path) -> "subprocess.Popen[bytes]":
    """`gateway serve` on that cluster, which is on the loopback interface."""
    options = ["--port", str(port), "--address", cluster.address]
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", str(config), *options],
            cwd=ROOT,
            env={**os.environ, CLUSTER_ON_LOOPBACK: cluster.environ[CLUSTER_ON_LOOPBACK]},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def test_a_gateway_joins_a_cluster_and_leaves_it(cluster: StartedCluster, tmp_path: Path) -> None:
    """It answers; a second one is refused; when it stops, the cluster runs on, empty."""
    config, port = tmp_path / "config.yaml", processes.free_port()
    config.write_text(yaml.safe_dump(document(gateway_application(), SIM)))
    logs = [tmp_path / name for name in ("first", "second", "third")]
    gateway = serve(cluster, config, port, logs[0])
    try:
        wait_for(lambda: "is ready" in logs[0].read_text() or gateway.poll(), START_TIMEOUT_S)
        assert gateway.poll() is None, logs[0].read_text()
        status = subprocess.run(
            [sys.executable, "-m", "gateway.cli", "status", "--url", f"http://127.0.0.1:{port}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        second = serve(cluster, config, processes.free_port(), logs[1])
        refused = second.wait(START_TIMEOUT_S)
    finally:
        gateway.send_signal(signal.SIGINT)
        stopped = gateway.wait(STOP_TIMEOUT_S)

    assert (status.returncode, stopped, refused) == (0, 0, 1), logs[0].read_text()
    assert "1 of 1 models up, 1 router" in status.stdout
    assert "this cluster runs gateway, sim already" in logs[1].read_text()
    assert "warning" not in logs[0].read_text()
    assert cluster.session.leader is not None
    third = serve(cluster, config, processes.free_port(), logs[2])
    try:
        wait_for(lambda: "deploying" in logs[2].read_text(), START_TIMEOUT_S)
    finally:
        third.send_signal(signal.SIGINT)
        third.wait(STOP_TIMEOUT_S)
