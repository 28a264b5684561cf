"""`gateway status`, `top` and `logs`, with a router over HTTP."""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.commands import logs as request_logs
from gateway.commands import top as live
from gateway.commands.console import operator_client
from gateway.commands.logs import logged_lines
from gateway.config.loader import parse_gateway
from gateway.environment import ADMIN_KEY as KEY_VARIABLE
from gateway.environment import GATEWAY_URL
from gateway.faults import Action, Fault
from gateway.local_files import KEPT_LOGS, TEMPORARY_PREFIX, logs_in, run_directory
from gateway.routing.fleet import Fleet, ModelState, Replica, ServedModel
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from gateway.telemetry.update import Finished, Load, Update
from tests.unit.administered import ADMIN_KEY
from tests.unit.command_line import app
from tests.unit.served import served

NOW_S = 1000.0
REPLICA = Replica(
    "r1",
    ReplicaMetadata(
        model="m",
        host="h",
        port=1,
        key="",
        facts=EngineFacts(
            engine="sim",
            routes=("/v1/chat/completions",),
            kv_tokens=1000,
            block_size=16,
            max_sequences=4,
            max_model_len=1000,
        ),
    ),
)
UPDATE = Update(
    is_snapshot=True,
    load=Load(running=3, waiting=2, pending_tokens=0, free_tokens=400),
    finished=[
        Finished(
            id=1,
            prompt_tokens=300,
            cached_tokens=75,
            completion_tokens=150,
            prompt_bytes=0,
            queue_s=0,
            prefill_s=0,
            decode_s=1,
            running=1,
        )
    ],
)


async def make_router() -> AssembledRouter:
    """A router with a model that is ready and one that starts."""
    fleet = Fleet()
    fleet.add(ServedModel("m", created_s=1, state=ModelState.READY, reason=""))
    fleet.add(ServedModel("large", created_s=1, reason="needs 1 GPU of type H100"))
    options = RouterOptions(router="a", time_of_day=lambda: NOW_S)
    router = build_router(fleet, lambda *_: None, options=options)
    router.live_config.apply(parse_gateway({"admin_key": ADMIN_KEY}))
    fleet.replace_replicas(fleet.model("m"), [REPLICA])
    scheduler = router.pools.of(fleet.model("m")).scheduler
    scheduler.record_update("r1", UPDATE)
    fault = Fault("m", "unreachable", Action.RETRIED)
    router.context.faults.record(
        fault, request_id="q", replica="r1", message="refused by [/v1/models]"
    )
    return router


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Address of that router."""
    with served(make_router) as url:
        yield url


def run(url: str, *arguments: str, key: str | None = ADMIN_KEY) -> Result:
    """Run a command with an admin key in its environment."""
    return CliRunner(env={GATEWAY_URL: url, KEY_VARIABLE: key}).invoke(app, arguments)


def test_status_says_why_a_model_is_not_ready(url: str) -> None:
    """One line for each model, and a status for scripts."""
    result = run(url, "status")

    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert lines[0] == f"{url}: 1 of 2 models up, 1 router"
    assert [line.split() for line in lines[1:]] == [
        ["model", "state", "replicas", "running", "queued", "why"],
        ["large", "starting", "0", "0", "0", *["needs", "1", "GPU", "of", "type", "H100"]],
        ["m", "ready", "1", "ready", "0", "0", "-"],
    ]


def test_status_is_there_as_json(url: str) -> None:
    """The same for programs."""
    found = json.loads(run(url, "status", "--json").stdout)

    assert found["ready"] is False
    assert [(each["model"], each["state"]) for each in found["models"]] == [
        ("large", "starting"),
        ("m", "ready"),
    ]
    assert (found["routers"], found["missing_routers"]) == (["a"], [])


@pytest.mark.parametrize("command", [("status",), ("top",), ("logs", "x")])
def test_a_gateway_that_cannot_be_reached_is_named(command: tuple[str, ...]) -> None:
    """On one line, without a traceback."""
    result = run("http://127.0.0.1:9", *command)

    assert result.exit_code == (2 if command == ("status",) else 1)
    assert "http://127.0.0.1:9/gateway/" in result.stderr
    assert "cannot be reached" in result.stderr


def test_without_a_key_the_variable_is_named(url: str) -> None:
    """An operator learns what to set."""
    result = run(url, "status", key=None)

    assert result.exit_code == 2
    assert "set GATEWAY_ADMIN_KEY" in result.stderr


def test_an_address_without_a_scheme_is_refused() -> None:
    """It is not taken for a path."""
    result = run("localhost:8000", "status")

    assert result.exit_code == 2
    assert "must begin with http://" in result.stderr


def test_top_shows_each_replica_and_each_model_without_one(url: str) -> None:
    """Load, tokens and hits of the last seconds, cache, errors; without a terminal, once."""
    result = run(url, "top")

    rows = [line.split() for line in result.stdout.splitlines()]
    (ready,) = [row for row in rows if row[:2] == ["m", "r1"]]
    (starting,) = [row for row in rows if row[:1] == ["large"]]
    assert result.exit_code == 0
    assert "1 of 2 models up, 1 replica, 1 router" in result.stdout.replace("replicas", "replica")
    assert ready[2:12] == ["ready", "3", "2", "0", "10", "20", "25", "%", "60", "%"]
    assert " ".join(ready[12:]).endswith("unreachable, retried: refused by [/v1/models]")
    assert " ".join(starting).endswith("needs 1 GPU of type H100")


def test_a_live_view_shows_errors_as_they_are(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets in an engine's words are no markup."""

    def leave(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", leave)
    monkeypatch.setenv(KEY_VARIABLE, ADMIN_KEY)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as to a terminal
    with pytest.raises(KeyboardInterrupt):
        live._follow(operator_client(url), 1)
    assert "refused by [/v1/models]" in capsys.readouterr().out


def test_a_router_of_the_release_before_has_no_recent_tokens() -> None:
    """As while a cluster is upgraded: the others are shown."""
    row = {"running": 1, "waiting": 0, "routers": [], "free_kv_tokens": None, "kv_tokens": 0}
    assert list(live._numbers({**row, "errors": 0})) == ["1", "0", "0", *["-"] * 4, "0"]
    assert live._tokens_per_s(row) == 0


def test_files_that_cannot_be_read_are_passed_over(url: str, tmp_path: Path) -> None:
    """Each is named; what the others have is shown."""
    (tmp_path / "requests_a.jsonl").mkdir()
    (tmp_path / "requests_b.jsonl").write_text('{"request_id": "q/2", "status": 200}\n')

    result = run(url, "logs", "q/2", "--folder", str(tmp_path))

    assert result.exit_code == 0
    assert "request q/2" in result.stdout
    assert f"{tmp_path}/requests_a.jsonl: cannot be read" in result.stderr


def test_logs_of_running_and_of_ended_gateways_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of `gateway serve` are not where Ray has its own."""
    running = logs_in(tmp_path / f"{TEMPORARY_PREFIX}1") / "serve"
    ended = run_directory({}) / KEPT_LOGS / "serve"
    running.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(request_logs, "RAY", tmp_path / "none")
    found = request_logs.default_folders()
    assert found == [running, *([ended] if ended.is_dir() else [])]


def test_logs_of_an_unknown_request_say_so(url: str, tmp_path: Path) -> None:
    """Neither a router nor a file knows it."""
    result = run(url, "logs", "nobody", "--folder", str(tmp_path))

    assert result.exit_code == 1
    assert "No router knows a request with the id 'nobody'" in result.stderr
    assert str(tmp_path) in result.stderr


def test_logs_are_found_in_the_files_of_all_routers(url: str, tmp_path: Path) -> None:
    """Also in those that were rotated; other requests and broken lines are passed over."""
    wanted = {"request_id": "q/1", "router": "a", "status": 200, "outcome": "answered"}
    other = {"request_id": "q/12", "requested_model": '"q/1"'}
    (tmp_path / "requests_a.jsonl").write_text(f'{json.dumps(other)}\n{{"request_id": "q/1"')
    (tmp_path / "requests_b.jsonl.1").write_text(f"{json.dumps(wanted)}\n")
    (tmp_path / "router.log").write_text(json.dumps(wanted))

    result = run(url, "logs", "q/1", "--folder", str(tmp_path))

    assert list(logged_lines([tmp_path], "q/1")) == [wanted]
    assert result.exit_code == 0
    assert "request q/1: ended, answered, status 200" in result.stdout
