"""Two routers answer operators as one: whichever is asked, and if one of them hangs."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.gateway_process import Document, GatewayProcess, model_application, wait_for

pytestmark = pytest.mark.integration

MODEL = model_application(name="watched", engine="sim", replicas=2)
BODY = {"model": "watched", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """The gateway, whose routers both know two engines."""
    with shared.models(MODEL) as running:
        wait_for(lambda: len(page(running, "replicas?model=watched")["data"]) == 2)
        wait_for(lambda: len(page(running, "config")["routers"]) == 2)
        yield running


def page(gateway: GatewayProcess, path: str, timeout_s: float = 60) -> Document:
    """One answer for operators."""
    status, found = gateway.request("GET", f"/gateway/{path}", timeout_s=timeout_s)
    assert status == 200, found
    return dict(found)


def ask(gateway: GatewayProcess, name: str) -> None:
    """Send a request with this id."""
    headers = {"x-request-id": name}
    with gateway.open("POST", "/v1/chat/completions", BODY, headers=headers) as response:
        assert response.status == 200
        response.read()


def test_whichever_router_is_asked_the_answer_is_the_same(gateway: GatewayProcess) -> None:
    """Each call may go to another router."""
    for number in range(8):
        ask(gateway, f"same-{number}")
    answers = [page(gateway, "decisions?model=watched") for _ in range(8)]

    seen = [{row["request_id"] for row in answer["data"]} for answer in answers]
    assert all(names >= {f"same-{number}" for number in range(8)} for names in seen)
    assert len({answer["data"][0]["request_id"] for answer in answers}) == 1
    assert {len({row["router"] for row in answer["data"]}) for answer in answers} == {2}


def test_a_request_is_found_through_any_router(gateway: GatewayProcess) -> None:
    """With its replica, its tokens and its decision."""
    ask(gateway, "lost-and-found")
    found = [page(gateway, "requests/lost-and-found")["data"] for _ in range(6)]

    assert [len(rows) for rows in found] == [1] * 6
    wait_for(lambda: page(gateway, "requests/lost-and-found")["data"][0]["prompt_tokens"])
    (row,) = page(gateway, "requests/lost-and-found")["data"]
    assert (row["state"], row["outcome"], row["completion_tokens"]) == ("ended", "answered", 4)
    assert row["decisions"][0]["replica"] == row["replica"]


def test_replicas_have_their_node_and_process(gateway: GatewayProcess) -> None:
    """As the operating system sees them, with the view of both routers."""
    rows = page(gateway, "replicas?model=watched")["data"]

    assert {row["pid"] for row in rows} == {
        process.pid for process in gateway.replica_processes("watched")
    }
    assert all(row["node"] and row["state"] == "ready" for row in rows)
    assert [len(row["routers"]) for row in rows] == [2, 2]


def test_a_router_that_hangs_is_named(gateway: GatewayProcess) -> None:
    """The other one answers within its time limit, and says who is missing."""
    hung, _ = gateway.replica_processes("gateway", "Router")
    ids = set(page(gateway, "config")["routers"])
    found: list[Document | None] = []

    def ask_again() -> bool:
        found.append(missing(gateway))
        return found[-1] is not None

    os.kill(hung.pid, signal.SIGSTOP)
    try:
        wait_for(ask_again)
    finally:
        os.kill(hung.pid, signal.SIGCONT)

    answer = found[-1]
    assert answer
    assert len(answer["missing"]) == 1
    assert {*answer["routers"], *answer["missing"]} == ids
    wait_for(lambda: not page(gateway, "config")["missing"])


def missing(gateway: GatewayProcess) -> Document | None:
    """An answer of the router that does not hang; None while only the other one is asked."""
    try:
        found = page(gateway, "config", timeout_s=5)
    except OSError:
        return None  # HAProxy has sent it to the one that hangs
    return found if found["missing"] else None


def test_each_request_has_a_line(gateway: GatewayProcess) -> None:
    """In the log of the router that answered it, with what its engine has counted."""
    ask(gateway, "logged")

    def lines() -> list[Document]:
        logs = {log for process in routers(gateway) for log in open_logs(process)}
        written = [json.loads(each) for log in logs for each in log.read_text().splitlines()]
        return [each for each in written if each["request_id"] == "logged"]

    wait_for(lines)
    (found,) = lines()
    assert (found["outcome"], found["model"], found["completion_tokens"]) == (
        *("answered", "watched", 4),
    )
    assert found["client"] == "127.0.0.1"


def routers(gateway: GatewayProcess) -> list[psutil.Process]:
    """The processes of the routers."""
    return list(gateway.replica_processes("gateway", "Router"))


def open_logs(router: psutil.Process) -> list[Path]:
    """Request logs beside the log files of Serve that a router has open."""
    folders = {
        Path(file.path).parent
        for file in router.open_files()
        if Path(file.path).parent.name == "serve"
    }
    return [log for folder in folders for log in folder.glob("requests_*.jsonl")]
