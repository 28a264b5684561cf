"""Projects on a whole gateway with two routers: keys, limits, usage, privacy, Accounts killed."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.config.route_paths import ROUTES
from tests.gateway_process import (
    GatewayProcess,
    document,
    gateway_application,
    model_application,
    wait_for,
)
from tests.unit.projects import ADMIN_KEY, KEY, OTHER_KEY, bearer, project, write_projects

pytestmark = pytest.mark.integration

LIMITED_KEY = "sk-limited"
LATE_KEY = "sk-late"
LIMIT = 5
FRAME_S = 0.15
"""More than it takes until all routers know of a request."""
Usage = tuple[int, ...]
"""Requests, and tokens of prompts, of the cached parts of those, and of answers."""
NOTHING = (0, 0, 0, 0)
COUNTS = ("num_model_requests", "input_tokens", "input_cached_tokens", "output_tokens")
FAST = {"step_s": 0.005, "output_tokens": 8}
SEARCH, OTHER, LIMITED = (
    project("search", KEY, id="proj_search", weight=2),
    project("other", OTHER_KEY, id="proj_other", models=["a"]),
    project(
        "limited", LIMITED_KEY, id="proj_limited", rate_limits=[{"requests_per_minute": LIMIT}]
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the projects file and of the database."""
    return tmp_path_factory.mktemp("projects")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[GatewayProcess]:
    """A gateway with two routers, two models, projects in a file, and a database."""
    front = gateway_application(auth={"projects": [write(folder)]})
    front["deployments"][0]["num_replicas"] = 2
    prices = {"a": [{"input": 1, "cached_input": 0.1, "output": 2}], "b": [{"output": 3}]}
    database = f"sqlite:///{folder / 'accounts.db'}"
    front["args"] = {"accounts": {"database": database, "prices": prices}}
    models = [model_application(name=name, engine="sim", simulation=FAST) for name in "ab"]
    with GatewayProcess(document(front, *models), folder) as running:
        wait_for(lambda: usage(running) is not None)
        yield running


def write(folder: Path, *more: Mapping[str, object]) -> str:
    """Write the projects file, with more projects."""
    file = folder / "projects.yaml"
    return write_projects(file, SEARCH, OTHER, LIMITED, *more, admin_keys=(ADMIN_KEY,))


def ask(
    gateway: GatewayProcess, key: str, text: str = "Hello", model: str = "a", **more: object
) -> tuple[int, http.client.HTTPMessage, Any]:
    """One chat over a connection of its own: its status, headers and parsed answer."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    headers = bearer(key) if key else {}
    with gateway.open("POST", "/v1/chat/completions", body, headers=headers) as response:
        return response.status, response.headers, json.loads(response.read())


def admin(gateway: GatewayProcess) -> openai.OpenAI:
    """OpenAI's client of the admin API."""
    return openai.OpenAI(base_url=f"{gateway.url}/v1", admin_api_key=ADMIN_KEY, max_retries=0)


def usage(gateway: GatewayProcess) -> dict[str, Usage] | None:
    """What the admin API says that projects have used; None if it does not answer."""
    try:
        page = admin(gateway).admin.organization.usage.completions(
            start_time=int(time.time()) - 86_400, group_by=["project_id"], limit=31
        )
    except openai.APIError:
        return None
    found: dict[str, Usage] = {}
    for each in results(page):
        counts = tuple(each[name] for name in COUNTS)
        found[each["project_id"]] = added(found.get(each["project_id"], NOTHING), counts)
    return found


def results(page: openai.BaseModel) -> list[dict[str, Any]]:
    """All results of an answer of the admin API."""
    buckets: list[dict[str, Any]] = page.to_dict()["data"]  # type: ignore[assignment]
    return [each for bucket in buckets for each in bucket["results"]]


def added(a: Usage, b: Usage) -> Usage:
    """The sum of two."""
    return tuple(map(sum, zip(a, b, strict=True)))


def counted(answers: list[Any]) -> Usage:
    """What clients have been told that they used."""
    told = [answer["usage"] for answer in answers]
    return (
        len(told),
        sum(each["prompt_tokens"] for each in told),
        sum(each["prompt_tokens_details"]["cached_tokens"] for each in told),
        sum(each["completion_tokens"] for each in told),
    )


def test_every_route_but_probes_needs_a_key(gateway: GatewayProcess) -> None:
    """Through HAProxy too; a project's key opens no operators' or administrators' route."""
    closed = [*(("POST", path) for path in ROUTES), ("GET", "/v1/models"), ("GET", "/docs")]
    closed += [("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/gateway/config")]
    closed += [("GET", "/v1/organization/projects"), ("POST", "/v1/organization/projects")]
    statuses = {}
    for method, path in closed:
        with gateway.open(method, path, {} if method == "POST" else None) as response:
            statuses[path] = response.status
    # From the thirty-first on, failures of one address are throttled.
    assert set(statuses.values()) <= {401, 429}, statuses
    for path in ("/healthz", "/readyz"):
        with gateway.open("GET", path) as response:
            assert response.status == 200, path
    for path in ("/gateway/config", "/v1/organization/projects"):
        with gateway.open("GET", path, headers=bearer()) as response:
            assert response.status in {401, 429}, path
        with gateway.open("GET", path, headers=bearer(ADMIN_KEY)) as response:
            assert response.status == 200, path


def test_a_changed_projects_file_counts_within_seconds(
    gateway: GatewayProcess, folder: Path
) -> None:
    """At both routers, without a deployment; a wrong one changes nothing."""
    assert ask(gateway, LATE_KEY)[0] in {401, 429}
    write(folder, project("late", LATE_KEY))
    wait_for(lambda: all(ask(gateway, LATE_KEY)[0] == 200 for _ in range(8)), 20)
    (folder / "projects.yaml").write_text("projects: [{name: broken, weight: -1}]")
    time.sleep(2)  # noqa: TID251 - longer than routers take to read it
    assert ask(gateway, LATE_KEY)[0] == 200
    write(folder)
    wait_for(lambda: all(ask(gateway, LATE_KEY)[0] != 200 for _ in range(8)), 20)


def test_openai_admin_client_makes_projects_and_keys(gateway: GatewayProcess) -> None:
    """Through HAProxy, a router and Accounts; routers follow within seconds."""
    organization = admin(gateway).admin.organization
    made = organization.projects.create(name="made")
    account = organization.projects.service_accounts.create(made.id, name="ci")
    assert account.api_key is not None
    key = account.api_key.value
    wait_for(lambda: all(ask(gateway, key)[0] == 200 for _ in range(8)), 20)
    answers = [ask(gateway, key, f"question {n}", max_tokens=n)[2] for n in range(1, 6)]
    before = 8  # at least: those of the waiting
    wait_for(lambda: (usage(gateway) or {}).get(made.id, (0,))[0] >= before + len(answers), 30)
    assert [each.id for each in organization.projects.list()] == [made.id]
    organization.projects.archive(made.id)
    wait_for(lambda: all(ask(gateway, key)[0] != 200 for _ in range(8)), 20)


def test_usage_is_what_clients_were_told(gateway: GatewayProcess) -> None:
    """To the token, cached ones included, and the costs by the prices."""
    before = (usage(gateway) or {}).get("proj_search", NOTHING)
    text = "All projects pay for what they use. " * 20
    answers = [ask(gateway, KEY, text, max_tokens=n, n=1 + n % 2)[2] for n in range(4, 16)]
    wanted = added(before, counted(answers))
    assert wanted[2] > 0, "something was cached"
    wait_for(lambda: (usage(gateway) or {}).get("proj_search") == wanted, 30)
    page = admin(gateway).admin.organization.usage.costs(
        start_time=int(time.time()) - 86_400, group_by=["project_id"], limit=31
    )
    costs = [each for each in results(page) if each["project_id"] == "proj_search"]
    cost = sum(each["amount"]["nano"] for each in costs)
    _, prompt, cached, completion = wanted
    # Each request is rounded to whole billionths.
    assert cost == pytest.approx(1000 * (prompt - 0.9 * cached + 2 * completion), abs=len(answers))


def test_a_limit_holds_for_both_routers(gateway: GatewayProcess) -> None:
    """The request after the last one gets 429, when to retry, and what is left."""
    answers = []
    for _ in range(LIMIT + 4):
        answers.append(ask(gateway, LIMITED_KEY, max_tokens=1))
        time.sleep(FRAME_S)  # noqa: TID251 - until the other router knows
    assert [status for status, _, _ in answers] == [200] * LIMIT + [429] * 4
    remaining = [headers["x-ratelimit-remaining-requests"] for _, headers, _ in answers]
    assert remaining == [*map(str, reversed(range(LIMIT))), *["0"] * 4]
    _, headers, answer = answers[-1]
    assert answer["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-limit-requests"] == str(LIMIT)


def test_models_of_others_look_as_if_absent(gateway: GatewayProcess) -> None:
    """A project lists and reaches those that it may use."""
    listed = {}
    for key in (KEY, OTHER_KEY):
        with gateway.open("GET", "/v1/models", headers=bearer(key)) as response:
            listed[key] = {each["id"] for each in json.loads(response.read())["data"]}
    assert listed == {KEY: {"a", "b"}, OTHER_KEY: {"a"}}
    hidden, absent = ask(gateway, OTHER_KEY, model="b"), ask(gateway, OTHER_KEY, model="none")
    assert hidden[0] == absent[0] == 404
    assert hidden[2]["error"]["code"] == absent[2]["error"]["code"]


def test_caches_are_private(gateway: GatewayProcess) -> None:
    """What one project has cached is not there for another, whatever salt it sends."""
    text = f"A secret of {time.time()}. " * 40

    def cached(key: str, salt: str = "own") -> int:
        answer = ask(gateway, key, text, max_tokens=1, cache_salt=salt)[2]
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert cached(KEY) == 0
    wait_for(lambda: cached(KEY) > 0)
    assert cached(OTHER_KEY) == 0
    assert cached(OTHER_KEY, "project:proj_search") == 0


def test_killing_accounts_under_load_loses_nothing(gateway: GatewayProcess) -> None:
    """Requests go on meanwhile, and the sums are equal in the end."""
    before = (usage(gateway) or {}).get("proj_search", NOTHING)
    answers: list[Any] = []
    failed: list[Any] = []
    until_s = time.monotonic() + 8

    def load(number: int) -> None:
        while time.monotonic() < until_s:
            try:
                status, _, answer = ask(gateway, KEY, f"load {number} ", model="b", max_tokens=6)
            except (OSError, http.client.HTTPException) as error:
                failed.append(error)
                continue
            (answers if status == 200 else failed).append(answer)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(2)  # noqa: TID251 - under load
        for process in gateway.replica_processes("gateway", "Accounts"):
            process.kill()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(answers) > 20
    wanted = added(before, counted(answers))
    with contextlib.suppress(AssertionError):
        wait_for(lambda: (usage(gateway) or {}).get("proj_search") == wanted, 60)
    assert (usage(gateway) or {})["proj_search"] == wanted


def test_the_deployment_is_healthy(gateway: GatewayProcess) -> None:
    """`serve status` shows Accounts with the routers, all of them running."""

    def is_healthy() -> bool:
        applications = gateway.status()["applications"]
        deployments = applications["gateway"]["deployments"]
        return {name: each["status"] for name, each in deployments.items()} == {
            "Router": "HEALTHY",
            "Accounts": "HEALTHY",
        } and applications["gateway"]["status"] == "RUNNING"

    wait_for(is_healthy)
