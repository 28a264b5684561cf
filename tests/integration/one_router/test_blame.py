"""What one client can cause at will: it gets its errors, and nobody else notices."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.gateway_process import Document, GatewayProcess, model_application

pytestmark = pytest.mark.integration

MODEL = "frail"
FAILS, HALTS = "this fails everywhere", "this halts its replica"
HALT_S = 9.0
"""Longer than a router waits for telemetry, so that the replica is given up."""
PERIOD_S = 0.25
"""Time between two requests of the bystander."""
ATTACKS = 30
FRAIL = model_application(
    name=MODEL,
    engine="sim",
    replicas=2,
    queue={"max_wait_s": 1.0},
    simulation={"step_s": 0.005, "error_text": FAILS, "halt_text": HALTS, "halt_s": HALT_S},
)


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A model of two engines, which some requests bring down."""
    with shared.models(FRAIL) as running:
        yield running


@dataclass
class Bystander:
    """A client that asks all the while, and what it gets."""

    http: httpx.AsyncClient
    answers: list[httpx.Response] = field(default_factory=list)

    async def run(self, is_over: asyncio.Event) -> None:
        """Ask now and then until it is over."""
        while not is_over.is_set():
            self.answers.append(await post(self.http, "Hello", "bystander"))
            await asyncio.sleep(PERIOD_S)

    def assert_unharmed(self) -> None:
        """All requests were answered."""
        assert Counter(answer.status_code for answer in self.answers).keys() == {200}


async def post(http: httpx.AsyncClient, text: str, client: str, **fields: object) -> httpx.Response:
    """One chat completion."""
    messages = [{"role": "user", "content": text}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 4, **fields}
    headers = {"authorization": f"Bearer {client}", "x-request-id": f"{client}-{uuid.uuid4()}"}
    return await http.post("/v1/chat/completions", json=body, headers=headers)


async def attack(gateway: GatewayProcess, text: str, streams: list[bool]) -> list[httpx.Response]:
    """What a client gets that sends the same again and again while another one asks."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        bystander, is_over = Bystander(http), asyncio.Event()
        asking = asyncio.create_task(bystander.run(is_over))
        await asyncio.sleep(2 * PERIOD_S)
        answers = [await post(http, text, "hostile", stream=is_stream) for is_stream in streams]
        is_over.set()
        await asking
    bystander.assert_unharmed()
    return answers


def faults(gateway: GatewayProcess) -> dict[tuple[str, str], int]:
    """How often each reason and action has been counted for the model."""
    _, counts = gateway.request("GET", "/gateway/faults")
    return {(f["reason"], f["action"]): f["count"] for f in counts["data"] if f["model"] == MODEL}


def attempts(gateway: GatewayProcess, answer: httpx.Response) -> int:
    """How many engines have had a request."""
    _, decisions = gateway.request("GET", f"/gateway/decisions?model={MODEL}")
    logged: list[Document] = decisions["data"]
    return sum(each["request_id"] == answer.headers["x-request-id"] for each in logged)


def test_a_request_that_fails_everywhere_ejects_nobody(gateway: GatewayProcess) -> None:
    """It is tried twice at most, ends with the engine's error, and costs others nothing."""
    pids = {process.pid for process in gateway.replica_processes(MODEL)}
    answers = asyncio.run(attack(gateway, FAILS, [False, True] * ATTACKS))

    assert {answer.status_code for answer in answers} == {500}
    assert {answer.json()["error"]["code"] for answer in answers} == {"simulated_failure"}
    assert {answer.headers["x-should-retry"] for answer in answers} == {"false"}
    assert max(attempts(gateway, answer) for answer in answers) == 2
    counted = faults(gateway)
    assert counted["answered_5xx", "blamed"] > 0
    assert not any(action == "ejected" for _, action in counted)
    assert {process.pid for process in gateway.replica_processes(MODEL)} == pids


def test_a_request_that_halts_a_replica_has_no_second_victim(gateway: GatewayProcess) -> None:
    """Not even if its client repeats it against advice; others are answered all the while."""
    pids = {process.pid for process in gateway.replica_processes(MODEL)}
    answers = asyncio.run(attack(gateway, HALTS, [False, False]))

    assert {answer.status_code for answer in answers} == {502}
    assert {answer.json()["error"]["code"] for answer in answers} == {"upstream_failed"}
    assert {answer.headers["x-should-retry"] for answer in answers} == {"false"}
    assert [attempts(gateway, answer) for answer in answers] == [1, 0]
    counted = faults(gateway)
    assert counted["stuck", "failed"] == counted["quarantined", "failed"] == 1
    assert {process.pid for process in gateway.replica_processes(MODEL)} == pids
