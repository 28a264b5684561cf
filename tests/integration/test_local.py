"""The local runner: what it says when it cannot start, and that nothing outlives it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from deployments.local.processes import Session, free_port
from tests.gateway_process import (
    ROOT,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    Document,
    document,
    gateway_application,
    model_application,
    wait_for,
)

pytestmark = pytest.mark.integration

SIM = model_application(name="sim", engine="sim", simulation={"step_s": 0.05})
LONG_ANSWER = {
    "model": "sim",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 4000,
    "stream": True,
}


def failed_start(config: Document, directory: Path, port: int) -> str:
    """What `serve` says when it ends without having started."""
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "gateway.cli", "serve", str(path), "--port", str(port)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 1
    return result.stderr


def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    """The operator learns who holds the port and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        said = failed_start(document(gateway_application(), SIM), tmp_path, port)

    assert "gateway stop" in said
    assert f"port {port} is in use by process" in said
    assert "PORT=" in said


def test_a_wrong_config_stops_the_start(tmp_path: Path) -> None:
    """One line names the file, the place in it and the nearest valid name."""
    wrong = model_application(name="sim", engine="sim", replics=2)

    said = failed_start(document(gateway_application(), wrong), tmp_path, free_port())

    (line,) = said.strip().splitlines()
    assert line.startswith(str(tmp_path / "config.yaml"))
    assert "args.replics" in line
    assert "replicas" in line


@dataclass(frozen=True)
class Terminal:
    """A terminal in which the local runner has been started, and what it shows."""

    process: subprocess.Popen[str]
    log: Path
    port: int

    @property
    def session(self) -> Session:
        """All that has been started from it."""
        return Session.read(ROOT / ".run" / f"{self.process.pid}.json")

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command from another shell."""
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            env={**os.environ, "GATEWAY_URL": f"http://127.0.0.1:{self.port}"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A gateway with a model for GPUs that this machine does not have."""
    large = model_application(name="large", engine="sim", accelerator="H100", drain_timeout_s=1)
    directory = tmp_path_factory.mktemp("terminal")
    config, log = directory / "config.yaml", directory / "log"
    config.write_text(yaml.safe_dump(document(gateway_application(), SIM, large)))
    command = [sys.executable, "-m", "gateway.cli", "serve", str(config)]
    port = free_port()
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        yield Terminal(process, log, port)
    finally:
        process.send_signal(signal.SIGINT)  # nothing, if it has been killed
        process.wait(STOP_TIMEOUT_S)


def test_a_model_without_a_place_says_why(terminal: Terminal) -> None:
    """The model waits, and the terminal shows the reason."""
    wait_for(
        lambda: (
            "model large: needs 1 GPU of type H100; no node has a GPU" in terminal.log.read_text()
        ),
        START_TIMEOUT_S,
    )


def test_commands_from_another_shell_show_the_gateway(terminal: Terminal) -> None:
    """How each model stands, each replica, and one request with the decision on it."""
    wait_for(lambda: "sim: running" in terminal.log.read_text(), START_TIMEOUT_S)
    body = {"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    connection = http.client.HTTPConnection("127.0.0.1", terminal.port, timeout=STOP_TIMEOUT_S)
    with contextlib.closing(connection):
        headers = {"x-request-id": "from-a-test", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        assert connection.getresponse().status == 200

    wait_for(lambda: "1 of 2 models up" in terminal.command("status").stdout)
    status, top = terminal.command("status"), terminal.command("top", "--once")
    wait_for(lambda: "completion_tokens" in terminal.command("logs", "from-a-test").stdout)
    logs = terminal.command("logs", "from-a-test")

    assert (status.returncode, top.returncode, logs.returncode) == (1, 0, 0)
    assert "1 of 2 models up, 1 router" in status.stdout
    assert "needs 1 GPU of type H100" in status.stdout
    assert [line.split()[0] for line in top.stdout.splitlines() if "ready" in line] == ["sim"]
    assert "request from-a-test: ended, answered, status 200" in logs.stdout
    assert "attempt 1: replica" in logs.stdout


def test_nothing_outlives_a_killed_terminal(terminal: Terminal) -> None:
    """The outer process is killed without a chance to clean up: the cluster ends by itself.

    A stream gets time to finish; a second signal, as of `make stop`, ends it with an error event.
    No temporary file is left.
    """
    wait_for(lambda: "sim: running" in terminal.log.read_text(), START_TIMEOUT_S)
    session = terminal.session
    members = session.members
    connection = http.client.HTTPConnection("127.0.0.1", terminal.port, timeout=STOP_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(LONG_ANSWER))
        stream = connection.getresponse()
        first = stream.readline()
        terminal.process.kill()
        terminal.process.wait()
        wait_for(lambda: "1 request has 30 s to finish" in terminal.log.read_text())
        later = stream.readline() + stream.readline()
        assert session.leader is not None
        session.leader.terminate()
        rest = stream.read()

    assert first.startswith(b"data: ")
    assert b"data: " in later, "it goes on meanwhile"
    assert b'"code":"shutting_down"' in rest
    wait_for(lambda: not session.members)
    wait_for(lambda: not Path(session.directory).exists())
    assert len(members) > 5
