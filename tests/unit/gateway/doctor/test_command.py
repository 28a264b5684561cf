"""The command `gateway doctor`: its lines, its JSON and its exit status."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.commands import doctor
from gateway.config.loader import load_config
from gateway.doctor.facts import ClusterFacts
from gateway.doctor.questions import GatheringFailed, Questions, questions_about
from tests.unit.command_line import app
from tests.unit.gateway.doctor.planted import cluster, node

FILE = """
http_options: {host: 127.0.0.1}
applications:
  - name: gateway
    import_path: deployments.app:gateway
    route_prefix: /
  - name: m
    import_path: deployments.app:model
    route_prefix: null
    args: {name: m, engine: vllm, source: org/model, accelerator: H100,
           adapters: [{name: a, source: /weights/a}]}
"""


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> list[ClusterFacts]:
    """Facts that are found: the last ones of this list."""
    found = [cluster()]
    monkeypatch.setattr(doctor, "gather", lambda _: found[-1])
    return found


def test_a_healthy_cluster_ends_with_0(facts: list[ClusterFacts]) -> None:
    """A line for each finding, and a sum."""
    del facts
    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "ok       nodes        3 nodes answer"
    assert lines[-1].endswith(" ok, 0 warnings, 0 failures")


def test_a_failure_ends_with_1_and_has_its_remedy(facts: list[ClusterFacts]) -> None:
    """Below its line."""
    facts.append(cluster(node("c", python="3.12.0")))
    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("failure  Python"))
    assert lines[place + 1].strip().startswith("-> install the same versions")


def test_a_warning_is_no_failure(facts: list[ClusterFacts]) -> None:
    """The exit status is for scripts that go on if all works."""
    facts.append(cluster(node("c", clock_offset_s=3.0)))
    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 0
    assert "warning  clock" in result.stdout


def test_findings_come_as_json(facts: list[ClusterFacts]) -> None:
    """With the level, check, message and remedy of each."""
    facts.append(cluster(node("c", max_files=100)))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(result.stdout)

    assert result.exit_code == 1
    assert found["healthy"] is False
    (failed,) = [each for each in found["findings"] if each["level"] == "failure"]
    assert failed["check"] == "files"
    assert failed["remedy"]


def test_what_cannot_be_read_ends_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was looked at."""

    def fail(questions: Questions) -> ClusterFacts:
        raise GatheringFailed(f"the cluster at {questions.address} cannot be asked")

    monkeypatch.setattr(doctor, "gather", fail)
    away = CliRunner().invoke(app, ["doctor", "--address", "10.9.9.9:6379"])
    wrong = CliRunner().invoke(app, ["doctor", str(tmp_path / "absent.yaml")])

    assert (away.exit_code, wrong.exit_code) == (2, 2)
    assert "10.9.9.9:6379" in away.stderr


def test_weights_on_other_nodes_are_no_mistake(tmp_path: Path, facts: list[ClusterFacts]) -> None:
    """The file is valid here, too, although this machine does not have them."""
    del facts
    path = tmp_path / "serve.yaml"
    path.write_text(FILE)

    assert "room" in CliRunner().invoke(app, ["doctor", str(path)]).stdout


@pytest.mark.parametrize(
    ("options", "arguments", "port"),
    [
        ("{host: 127.0.0.1, port: 9123}", [], 9123),
        ("{host: 127.0.0.1, port: 9123}", ["--port", "9200"], 9200),
        ("{host: 127.0.0.1}", [], 8000),
    ],
)
def test_the_port_is_that_of_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    arguments: list[str],
    port: int,
) -> None:
    """Unless another one is named."""
    asked: list[Questions] = []

    def gather(questions: Questions) -> ClusterFacts:
        asked.append(questions)
        return cluster()

    monkeypatch.setattr(doctor, "gather", gather)
    path = tmp_path / "serve.yaml"
    path.write_text(FILE.replace("{host: 127.0.0.1}", options))

    CliRunner().invoke(app, ["doctor", str(path), *arguments])

    assert [each.port for each in asked] == [port]


def test_a_file_raises_its_questions(tmp_path: Path) -> None:
    """Which weights are looked for, and on which nodes."""
    path = tmp_path / "serve.yaml"
    path.write_text(FILE)
    deployment = load_config(path, has_files=False)  # other nodes may have the weights
    asked = questions_about(deployment, 8001, address="auto", has_collectives=False)

    assert [(s.field, s.source, s.is_path, s.accelerator) for s in asked.sources] == [
        ("source", "org/model", False, "accelerator_type:H100"),
        ("adapters.a", "/weights/a", True, "accelerator_type:H100"),
    ]
    assert (asked.port, asked.has_collectives) == (8001, False)
