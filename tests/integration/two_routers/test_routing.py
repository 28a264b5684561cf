"""Routing on a running system: eight simulated engines behind two routers."""

import concurrent.futures
import http.client
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from deployments.local.run import ROUTER_PORTS
from gateway.header_names import PROXY_PROOF
from gateway.proxy_key import proxy_key
from tests.gateway_process import Document, GatewayProcess, model_application, wait_for

pytestmark = pytest.mark.integration

REPLICAS = 8
BLOCK_TOKENS = 16
MODEL = model_application(
    name="eight",
    engine="sim",
    replicas=REPLICAS,
    simulation={"block_size": BLOCK_TOKENS, "kv_tokens": 65_536, "step_s": 0.01},
)


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """The gateway, whose routers both know eight engines."""
    with shared.models(MODEL) as running:
        wait_for(lambda: [router.replicas for router in routers(running)] == [REPLICAS] * 2)
        yield running


@dataclass
class RouterAt:
    """One of the routers, asked at its own port."""

    port: int

    def post(self, path: str, body: Document) -> Any:
        """One JSON request: its parsed answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            headers = {"content-type": "application/json", **through_proxy()}
            connection.request("POST", path, json.dumps(body), headers)
            return json.loads(connection.getresponse().read())

    @property
    def replicas(self) -> int:
        """How many replicas of the model this router knows."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", "/v1/models", headers=through_proxy())
            listing = json.loads(connection.getresponse().read())
        return sum(model["replicas"] for model in listing["data"] if model["id"] == "eight")

    def predicted_tokens(self, body: Document) -> int:
        """What this router takes the replica it would choose to hold of a prompt."""
        decision = self.post("/gateway/route", body)
        return int(decision.get("cached_tokens", 0))


def through_proxy() -> dict[str, str]:
    """The headers that HAProxy adds to a request of this machine."""
    key = proxy_key({**os.environ, "RAY_AUTH_MODE": "token"})
    return {PROXY_PROOF.decode(): key, "x-forwarded-for": "127.0.0.1"}


def routers(gateway: GatewayProcess) -> list[RouterAt]:
    """All routers that listen."""
    return [
        RouterAt(connection.laddr[1])
        for process in gateway.replica_processes("gateway", "Router")
        for connection in listening(process)
    ]


def listening(process: psutil.Process) -> list[Any]:
    """The ports at which a router takes requests; none for one that has just gone."""
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return []
    return [
        c
        for c in connections
        if c.status == "LISTEN" and ROUTER_PORTS[0] <= c.laddr[1] <= ROUTER_PORTS[1]
    ]


def chat(text: str, **more: object) -> Document:
    """The body of a chat completion."""
    messages = [{"role": "user", "content": text}]
    return {"model": "eight", "messages": messages, "max_tokens": 32, **more}


def ask(gateway: GatewayProcess, body: Document) -> tuple[str, int, Document]:
    """One chat completion: its replica, the cached tokens predicted, the answer."""
    with gateway.open("POST", "/v1/chat/completions", body) as response:
        answer = json.loads(response.read())
        assert response.status == 200, answer
        headers = response.headers
        return headers["x-gateway-replica"], int(headers["x-gateway-cached-tokens"]), answer


def cached_tokens(answer: Document) -> int:
    """The engine's own count."""
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_a_conversation_stays_with_its_prefix(gateway: GatewayProcess) -> None:
    """Five conversations take turns: each goes on where it was, and is predicted to a block."""
    conversations = [[{"role": "user", "content": f"{i} " + "opening " * 200}] for i in range(5)]
    homes: list[set[str]] = [set() for _ in conversations]
    errors = []
    for turn in range(4):
        for messages, home in zip(conversations, homes, strict=True):
            replica, predicted, answer = ask(gateway, chat("", messages=messages))
            home.add(replica)
            if turn:
                errors.append(abs(predicted - cached_tokens(answer)))
                assert cached_tokens(answer) > 350
            messages.append(answer["choices"][0]["message"])
            messages.append({"role": "user", "content": f"and then? {turn} " * 20})

    assert [len(home) for home in homes] == [1] * 5
    # A prefix key stands for 64 tokens, four of these engine's blocks.
    assert sum(error <= 64 + BLOCK_TOKENS for error in errors) >= 0.9 * len(errors)


def test_what_one_router_has_sent_the_other_knows(gateway: GatewayProcess) -> None:
    """The engine tells both."""
    one, other = routers(gateway)
    body = chat("known to both " * 200)

    before = other.predicted_tokens(body)
    one.post("/v1/chat/completions", body)
    wait_for(lambda: other.predicted_tokens(body) > 500)

    assert before == 0


def test_a_hot_prefix_does_not_collapse_onto_one_replica(gateway: GatewayProcess) -> None:
    """Sixty-four requests at once with one long prefix: all replicas take their part."""
    shared = "the same for everybody " * 400

    def one_of_many(number: int) -> str:
        return ask(gateway, chat(shared + str(number), max_tokens=64))[0]

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        taken = Counter(pool.map(one_of_many, range(64)))

    assert len(taken) == REPLICAS
    assert max(taken.values()) <= 3 * 64 / REPLICAS


def test_decisions_are_completed_by_what_engines_tell(gateway: GatewayProcess) -> None:
    """An operator sees what was predicted and what came of it."""
    (router, _) = routers(gateway)
    body = chat("a decision to look at " * 100)
    router.post("/v1/chat/completions", body)

    def latest() -> Document:
        with closing(http.client.HTTPConnection("127.0.0.1", router.port, timeout=60)) as c:
            c.request("GET", "/gateway/decisions?limit=1", headers=through_proxy())
            decision: Document = json.loads(c.getresponse().read())["data"][0]
            return decision

    wait_for(lambda: latest()["actual"])
    decision = latest()

    assert abs(decision["prompt_tokens"] - decision["actual"]["prompt_tokens"]) < 100
    assert decision["actual"]["completion_tokens"] == 32
    assert 0 < decision["actual"]["ttft_s"] < 10 * decision["ttft_s"]


def test_a_router_that_restarts_has_all_holdings_back(gateway: GatewayProcess) -> None:
    """The engines' snapshots tell it what they hold."""
    body = chat("remember this " * 300)
    ask(gateway, body)
    former = {process.pid for process in gateway.replica_processes("gateway", "Router")}

    victim = gateway.replica_processes("gateway", "Router")[0]
    victim.kill()
    wait_for(
        lambda: any(
            process.pid not in former and listening(process)
            for process in gateway.replica_processes("gateway", "Router")
        )
    )
    (successor,) = [
        RouterAt(connection.laddr[1])
        for process in gateway.replica_processes("gateway", "Router")
        if process.pid not in former
        for connection in listening(process)
    ]
    wait_for(lambda: successor.predicted_tokens(body) > 900)

    assert gateway.chat("eight", max_tokens=2)[0] == 200
