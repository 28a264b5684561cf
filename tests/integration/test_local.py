"""The local runner: what it says when it cannot start, and that nothing outlives it."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.local.processes import free_port
from tests.gateway_process import (
    ROOT,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    Document,
    GatewayProcess,
    document,
    gateway_application,
    model_application,
    wait_for,
)

pytestmark = pytest.mark.integration

SIM = model_application(name="sim", engine="sim", simulation={"instant": True})


def failed_start(config: Document, directory: Path, port: int) -> str:
    """What `serve` says when it ends without having started."""
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "deployments.local", "serve", str(path), "--port", str(port)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 1
    return result.stderr


def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    """The operator learns who holds the port and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        said = failed_start(document(gateway_application(), SIM), tmp_path, port)

    assert f"port {port} is in use by process" in said
    assert "PORT=" in said


def test_a_wrong_config_stops_the_start(tmp_path: Path) -> None:
    """One line names the file, the place in it and the nearest valid name."""
    wrong = model_application(name="sim", engine="sim", replics=2)

    said = failed_start(document(gateway_application(), wrong), tmp_path, 0)

    (line,) = said.strip().splitlines()
    assert line.startswith(str(tmp_path / "config.yaml"))
    assert "args.replics" in line
    assert "replicas" in line


def test_a_model_without_a_place_says_why(tmp_path: Path) -> None:
    """A model for GPUs that this machine does not have waits, and the terminal shows the reason."""
    large = model_application(name="large", engine="sim", accelerator="H100")
    config, log = tmp_path / "config.yaml", tmp_path / "log"
    config.write_text(yaml.safe_dump(document(gateway_application(), SIM, large)))
    command = [sys.executable, "-m", "deployments.local", "serve", str(config)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(free_port())],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        wait_for(
            lambda: "model large: needs 1 GPU of type H100; no node has a GPU" in log.read_text(),
            START_TIMEOUT_S,
        )
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_TIMEOUT_S)


def test_nothing_outlives_a_killed_terminal(tmp_path: Path) -> None:
    """The outer process is killed without a chance to clean up: the cluster ends by itself."""
    with GatewayProcess(document(gateway_application(), SIM), tmp_path) as gateway:
        members = gateway.session.members
        gateway.process.kill()
        gateway.process.wait()

        wait_for(lambda: not gateway.session.members)

    assert len(members) > 5
