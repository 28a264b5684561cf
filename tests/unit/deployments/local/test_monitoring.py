"""Prometheus and Grafana for a local gateway, with fake programs in their place."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from deployments.local.monitoring import DASHBOARD, grafana, prometheus, write_agents
from deployments.local.processes import Session, free_port
from deployments.local.scrape_targets import agents_of, sessions_in
from tests.gateway_process import ROOT, wait_for

STAND_IN = f"""#!{sys.executable}
import http.server, json, os, pathlib, sys
port = os.environ.get("GF_SERVER_HTTP_PORT") or sys.argv[-1].rpartition(":")[2]
name = pathlib.Path(sys.argv[0]).name
told = {{"arguments": sys.argv[1:], "process": os.getpid()}}
pathlib.Path(name + ".told").write_text(json.dumps(told))
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(port)), Healthy).serve_forever()
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with a fake Prometheus and a fake Grafana."""
    home = tmp_path / "grafana-home"
    (home / "bin").mkdir(parents=True)
    (home / "conf").mkdir()
    (home / "conf" / "defaults.ini").touch()
    for name in ("prometheus", "grafana"):
        program = home / "bin" / name
        program.write_text(STAND_IN)
        program.chmod(0o755)
    return home / "bin"


def test_prometheus_scrapes_the_agents(programs: Path, tmp_path: Path) -> None:
    """Its config names the file that `write_agents` writes, in Prometheus's format."""
    observer = prometheus(tmp_path, 9090, str(programs))
    write_agents(tmp_path, ["127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"])

    assert observer
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    ((file,),) = [each["files"] for each in job["file_sd_configs"]]
    assert json.loads(Path(file).read_text()) == [{"targets": ["127.0.0.1:1", "127.0.0.1:2"]}]
    assert observer.command[-1] == "--web.listen-address=127.0.0.1:9090"


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Prometheus")
def test_prometheus_accepts_its_config(programs: Path, tmp_path: Path) -> None:
    """Prometheus's own check of the config and the list passes."""
    prometheus(tmp_path, 9090, str(programs))
    write_agents(tmp_path, ["127.0.0.1:1"])

    checked = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr


def test_grafana_finds_its_data_source_and_dashboard(programs: Path, tmp_path: Path) -> None:
    """The provisioned files have Grafana's format, and name Prometheus and the dashboard."""
    observer = grafana(tmp_path, 3000, str(programs), "http://127.0.0.1:9090")

    assert observer
    provisioning = Path(observer.environment["GF_PATHS_PROVISIONING"])
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())
    boards = yaml.safe_load((provisioning / "dashboards" / "gateway.yaml").read_text())
    assert sources["apiVersion"] == boards["apiVersion"] == 1
    (source,) = sources["datasources"]
    assert (source["type"], source["access"], source["url"], source["isDefault"]) == (
        *("prometheus", "proxy"),
        *("http://127.0.0.1:9090", True),
    )
    (provider,) = boards["providers"]
    assert provider["type"] == "file"
    assert DASHBOARD in Path(provider["options"]["path"]).glob("*.json")
    assert observer.command[1:] == ["server", "--homepath", str(programs.parent)]
    assert observer.environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


@pytest.mark.skipif(Path("/usr/share/grafana").exists(), reason="has Grafana where packages put it")
def test_a_grafana_without_its_files_is_not_used(tmp_path: Path) -> None:
    """It could not start."""
    (tmp_path / "grafana").write_text(STAND_IN)
    (tmp_path / "grafana").chmod(0o755)

    assert grafana(tmp_path, 3000, str(tmp_path), "http://127.0.0.1:9090") is None


def test_missing_agent_lists_are_skipped(tmp_path: Path) -> None:
    """The agents are those of all lists that can be read."""
    (tmp_path / "one").write_text('[{"labels": {"job": "ray"}, "targets": ["a:1", "b:2"]}]')
    (tmp_path / "two").write_text('[{"labels": {"job": "ray"}, "targets": ["c:3"]}]')
    (tmp_path / "half").write_text('[{"labels"')

    lists = [tmp_path / name for name in ("one", "half", "none", "two")]

    assert agents_of(lists) == ["a:1", "b:2", "c:3"]


def test_only_complete_session_files_are_read(tmp_path: Path) -> None:
    """A file that is being written or removed is skipped."""
    Session(7, 1.5).write(tmp_path / "7.json")
    (tmp_path / "8.json").write_text('{"id": 8')

    assert sessions_in(tmp_path) == [Session(7, 1.5)]


def test_both_are_started_and_ended(programs: Path, tmp_path: Path) -> None:
    """The command prints their addresses, follows the list, and ends both on a signal."""
    agents = tmp_path / "list.json"
    agents.write_text('[{"targets": ["127.0.0.1:1"]}]')
    directory, said = tmp_path / "files", tmp_path / "said"
    ports = free_port(), free_port()
    with said.open("w") as output:
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "deployments.local.observe", str(agents)),
                *("--prometheus-port", str(ports[0]), "--grafana-port", str(ports[1])),
                *("--directory", str(directory)),
            ],
            env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    try:
        wait_for(lambda: "Ctrl-C" in said.read_text() or command.poll() is not None)
        agents.write_text('[{"targets": ["127.0.0.1:7"]}]')
        wait_for(lambda: "127.0.0.1:7" in (directory / "agents.json").read_text())
        names = "prometheus", "grafana"
        told = [json.loads((directory / f"{name}.told").read_text()) for name in names]
        were_running = [psutil.pid_exists(each["process"]) for each in told]
    finally:
        command.send_signal(signal.SIGINT)
        code = command.wait(60)

    assert were_running == [True, True]
    assert [psutil.pid_exists(each["process"]) for each in told] == [False, False]
    assert code == 0
    assert f"Prometheus: http://127.0.0.1:{ports[0]}\n" in said.read_text()
    assert f"Grafana: http://127.0.0.1:{ports[1]}\n" in said.read_text()


def test_without_prometheus_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    """In one line, with the exit status of a failure."""
    if prometheus(tmp_path, 9090, ""):
        pytest.skip("Prometheus is where every PATH finds it")

    ended = subprocess.run(
        [sys.executable, "-m", "deployments.local.observe", "--directory", str(tmp_path)],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("Prometheus is not installed: ")
