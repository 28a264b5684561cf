"""The gateway on a Ray cluster of its own, in front of simulated engines."""

import http.client
import json
import time
from collections.abc import Iterator

import pytest

from tests.gateway_process import (
    RESIDENT,
    Document,
    GatewayProcess,
    model_application,
    text_of,
    wait_for,
)
from tests.prometheus import (
    lacking,
    of_every_gateway,
    on_dashboard,
    scrape,
    series_of_gateway,
)

pytestmark = pytest.mark.integration

DECODE_STEP_S = 0.05
ONE_AT_A_TIME = {"step_s": DECODE_STEP_S, "step_s_per_sequence": 0, "max_sequences": 1}
CHAT = "/v1/chat/completions"
LONG = 100
"""Tokens of an answer that takes five seconds."""
DEPLOYING = 500
"""Tokens of an answer that takes longer than a deploy: 25 seconds."""


def sim(name: str, **more: object) -> Document:
    """A simulated model's application."""
    return model_application(name=name, engine="sim", simulation=ONE_AT_A_TIME, **more)


PAIR = sim("pair", replicas=2)
SINGLE = sim("single")


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway with two models."""
    with shared.models(PAIR, SINGLE, max_body_mb=1) as running:
        yield running


@pytest.fixture
def redeployable(gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """The gateway, for a test that changes its config; put back as it was."""
    yield gateway
    gateway.deploy_models(PAIR, SINGLE, max_body_mb=1)
    wait_for(lambda: states(gateway) == {"pair": "ready", "single": "ready"})


def states(gateway: GatewayProcess) -> dict[str, str]:
    """The state of every model but the resident one."""
    _, listing = gateway.request("GET", "/v1/models")
    return {m["id"]: m["state"] for m in listing["data"] if m["id"] != RESIDENT["name"]}


def pids(gateway: GatewayProcess, app: str, deployment: str = "Engine") -> set[int]:
    """The process ids of an application's replicas."""
    return {process.pid for process in gateway.replica_processes(app, deployment)}


def test_each_model_answers_as_itself(gateway: GatewayProcess) -> None:
    """Two models behind one address."""
    answers = [gateway.chat(name, max_tokens=3) for name in ("pair", "single")]

    assert [status for status, _ in answers] == [200, 200]
    assert [answer["model"] for _, answer in answers] == ["pair", "single"]


def test_serve_status_shows_every_model_and_its_replicas(gateway: GatewayProcess) -> None:
    """Serve's own tools tell the operator what runs."""
    applications = gateway.status_by_command()["applications"]

    running = {
        name: app["deployments"]["Engine"]["replica_states"]["RUNNING"]
        for name, app in applications.items()
        if name != "gateway"
    }
    assert running == {"resident": 1, "pair": 2, "single": 1}
    assert {name: app["status"] for name, app in applications.items()} == {
        name: app["status"] for name, app in gateway.status()["applications"].items()
    }


def test_a_second_stream_goes_to_the_idle_replica(gateway: GatewayProcess) -> None:
    """Each replica runs one sequence: both streams flow, so each has a replica to itself."""
    with gateway.stream("pair", "one", LONG) as one, gateway.stream("pair", "two", 10) as two:
        next(one)
        began_s = time.monotonic()
        text_of(two)
        elapsed_s = time.monotonic() - began_s
        rest_of_one = text_of(one)

    assert elapsed_s < DECODE_STEP_S * LONG / 2, "the second waited for the first to end"
    assert rest_of_one


def test_a_client_that_leaves_frees_its_place_in_the_engine(gateway: GatewayProcess) -> None:
    """The engine runs one sequence: the next request is answered because the first was ended."""
    with gateway.stream("single", "an hour of words", 30_000) as stream:
        next(stream)

    status, answer = gateway.chat("single", max_tokens=2)

    assert status == 200
    assert answer["usage"]["completion_tokens"] == 2


def test_a_client_that_leaves_before_its_answer_frees_its_place(gateway: GatewayProcess) -> None:
    """The same for a client that does not stream, and so has not got a byte yet, time and again."""
    messages = [{"role": "user", "content": "an hour of words"}]
    body = json.dumps({"model": "single", "messages": messages, "max_tokens": 30_000})

    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=0.5)
        connection.request("POST", CHAT, body, {"content-type": "application/json"})
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()

        status, _ = gateway.chat("single", max_tokens=2)

        assert status == 200


def test_models_come_and_go_while_a_stream_of_another_runs(redeployable: GatewayProcess) -> None:
    """`serve deploy` of an edited file touches no engine but those it adds or removes."""
    gateway = redeployable
    engines, router = pids(gateway, "pair"), pids(gateway, "gateway", "Router")

    with gateway.stream("pair", "tell me", DEPLOYING) as stream:
        began_s = time.monotonic()
        next(stream)
        gateway.deploy_by_command(gateway.beside_resident(PAIR, sim("added"), max_body_mb=1))
        wait_for(lambda: states(gateway) == {"pair": "ready", "added": "ready"})
        added, removed = gateway.chat("added", max_tokens=2), gateway.chat("single", max_tokens=2)
        deployed_s = time.monotonic() - began_s
        words = text_of(stream).split()

    assert deployed_s < DECODE_STEP_S * DEPLOYING, "the stream was over before the deploy was"
    assert added[0] == 200
    assert (removed[0], removed[1]["error"]["code"]) == (404, "model_not_found")
    assert len(words) >= DEPLOYING - 2
    assert pids(gateway, "pair") == engines
    assert pids(gateway, "gateway", "Router") == router


def test_a_removed_model_finishes_what_it_has_begun(redeployable: GatewayProcess) -> None:
    """A graceful stop drains: the stream of a model that is being removed runs to its end."""
    gateway = redeployable

    with gateway.stream("single", "last words", 150) as stream:
        next(stream)
        gateway.deploy_models(PAIR, max_body_mb=1)
        words = text_of(stream).split()

    assert len(words) >= 149
    wait_for(lambda: not pids(gateway, "single"))


def test_the_gateway_config_changes_in_place(redeployable: GatewayProcess) -> None:
    """`serve deploy` of another `user_config` reaches the same router process."""
    gateway = redeployable
    router = pids(gateway, "gateway", "Router")
    long_text = "x" * 2**20
    before = gateway.chat("pair", long_text)

    gateway.deploy_models(PAIR, SINGLE, max_body_mb=4)
    wait_for(lambda: gateway.chat("pair", long_text)[1]["error"]["code"] != "body_too_large")
    after = gateway.chat("pair", long_text)

    assert (before[0], before[1]["error"]["code"]) == (413, "body_too_large")
    assert (after[0], after[1]["error"]["code"]) == (400, "context_length_exceeded")
    assert pids(gateway, "gateway", "Router") == router


def test_a_wrong_entry_fails_alone_and_says_why(redeployable: GatewayProcess) -> None:
    """One model's mistake leaves the others as they are; `serve status` names the field."""
    gateway = redeployable
    wrong = sim("wrong", replics=2)

    gateway.deploy_models(PAIR, SINGLE, wrong, max_body_mb=1)
    wait_for(lambda: gateway.status()["applications"]["wrong"]["status"] == "DEPLOY_FAILED")

    assert "replics" in gateway.status()["applications"]["wrong"]["message"]
    assert gateway.chat("pair", max_tokens=2)[0] == 200


def test_a_model_at_zero_is_woken_by_a_request(redeployable: GatewayProcess) -> None:
    """An engine starts also for a client that does not wait for it; a later one is answered."""
    gateway = redeployable
    sleeper = sim("sleeper", autoscaling={"min": 0, "max": 1}, cold_start_timeout_s=0.2)
    gateway.deploy_models(PAIR, SINGLE, sleeper, max_body_mb=1)
    wait_for(lambda: states(gateway).get("sleeper") == "scaled_to_zero")

    asleep = gateway.chat("sleeper", max_tokens=2)
    wait_for(lambda: states(gateway)["sleeper"] == "ready")
    awake = gateway.chat("sleeper", max_tokens=2)

    assert (asleep[0], asleep[1]["error"]["code"]) == (503, "model_unavailable")
    assert awake[0] == 200


def test_a_loaded_model_grows(redeployable: GatewayProcess) -> None:
    """More requests in flight than one replica should have: Serve starts another one."""
    gateway = redeployable
    growing = sim("growing", autoscaling={"min": 1, "max": 2})
    gateway.deploy_models(PAIR, growing, max_body_mb=1)
    wait_for(lambda: states(gateway) == {"pair": "ready", "growing": "ready"})

    with (
        gateway.stream("growing", "one", 10_000) as one,
        gateway.stream("growing", "two", 10_000),
    ):
        next(one)
        wait_for(lambda: len(pids(gateway, "growing")) == 2)


def test_a_scrape_holds_what_the_dashboard_asks_for(redeployable: GatewayProcess) -> None:
    """Ray's agent exports, after some requests, all our metrics with all their labels."""
    gateway = redeployable
    shadowed = {"both": {"models": {"pair": 1}, "shadow": {"model": "single", "fraction": 1}}}
    names = {"splits": shadowed, "fallbacks": {"single": ["pair"]}}
    gateway.deploy_models(PAIR, SINGLE, max_body_mb=4, **names)
    wait_for(lambda: "both" in states(gateway))
    wanted = of_every_gateway(on_dashboard(series_of_gateway()))

    for _ in range(2):  # the second finds its prompt in the cache
        with gateway.stream("both", "word " * 500, 5) as stream:
            text_of(stream)
    with gateway.stream("both", "word", 500) as stream:
        next(stream)  # and leave, which HAProxy counts
    too_long = gateway.chat("single", "x" * 2**20)

    assert too_long[0] == 400
    assert len(wanted) > 20
    wait_for(lambda: not lacking(scrape(gateway.session), wanted))


def test_a_killed_engine_is_replaced_while_the_others_go_on(gateway: GatewayProcess) -> None:
    """A replica's process is killed: its model's requests wait until Serve has a new one."""
    (killed,) = gateway.replica_processes("single")
    killed.kill()
    wait_for(lambda: states(gateway)["single"] != "ready")

    other = gateway.chat("pair", max_tokens=2)
    waited = gateway.chat("single", max_tokens=2)

    assert (other[0], waited[0]) == (200, 200)
    assert killed.pid not in pids(gateway, "single")


def test_an_engine_answers_nobody_but_the_router(gateway: GatewayProcess) -> None:
    """A replica's HTTP server listens on the node's address and wants the replica's own key."""
    answers = [
        status
        for process in gateway.replica_processes("pair")
        for connection in process.net_connections("tcp")
        if connection.status == "LISTEN"
        and connection.laddr[0] == "127.0.0.1"
        and (status := http_status(connection.laddr[1])) is not None
    ]

    assert answers
    assert set(answers) == {401}


def http_status(port: int) -> int | None:
    """What a port answers to a keyless HTTP request; None if it does not speak HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        with connection.getresponse() as response:
            return response.status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
