"""`gateway status`, `top` and `logs`, with a router over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.assembly import AssembledRouter, RouterOptions, build_router
from gateway.commands.logs import logged_lines
from gateway.config.loader import parse_gateway
from gateway.environment import ADMIN_KEY as KEY_VARIABLE
from gateway.environment import GATEWAY_URL
from gateway.faults import Action, Fault
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
    router.context.faults.record(fault, request_id="q", replica="r1", message="refused")
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
    assert " ".join(ready[12:]).endswith("unreachable, retried: refused")
    assert " ".join(starting).endswith("needs 1 GPU of type H100")


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
