"""Names that stand for models, and models that sleep, on a running system of simulated engines."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.gateway_process import (
    Document,
    GatewayProcess,
    events,
    model_application,
    wait_for,
)

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
STEP_S = 0.05
LONG = 100
"""Tokens of an answer that takes five seconds."""
QUICK_NAP = {"min": 0, "max": 1, "scale_down_delay_s": 3}
STARTING_S = 120.0
"""Far longer than any start on a busy machine."""
NAMES: Document = {"aliases": {"nick": "first"}, "fallbacks": {"first": ["second"]}}


def sim(name: str, simulation: Document | None = None, **more: object) -> Document:
    """A simulated model's application."""
    speed = {"step_s": STEP_S, "step_s_per_sequence": 0}
    return model_application(name=name, engine="sim", simulation=speed | (simulation or {}), **more)


MODELS = [
    sim("first"),
    sim("second"),
    sim("sleepy", {"start_s": 2}, autoscaling=QUICK_NAP),
    sim("broken", {"start_error": "no such weights"}, autoscaling=QUICK_NAP),
]


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway with models that run, one that sleeps, and one that will not start."""
    with shared.models(*MODELS, **NAMES) as running:
        yield running


def answering(gateway: GatewayProcess, name: str, **headers: str) -> str | None:
    """The model that answers for a name."""
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    with gateway.open("POST", CHAT, body, headers=headers, timeout_s=STARTING_S) as response:
        assert response.status == 200, response.read()
        return response.headers["x-gateway-model"]


def replica_states(gateway: GatewayProcess, app: str) -> Document:
    """What `serve status` says of a model's engines."""
    states: Document = gateway.status()["applications"][app]["deployments"]["Engine"][
        "replica_states"
    ]
    return states


def test_names_change_in_place(gateway: GatewayProcess) -> None:
    """`serve deploy` of other names: the same router, and the stream under way is not dropped."""
    routers = {process.pid for process in gateway.replica_processes("gateway", "Router")}
    body = {"model": "nick", "messages": [{"role": "user", "content": "hi"}]}
    before = answering(gateway, "nick")
    with gateway.open("POST", CHAT, {**body, "stream": True, "max_tokens": LONG}) as response:
        said = events(response)
        first = next(said)
        gateway.deploy_models(*MODELS, aliases={"nick": "second"})
        wait_for(lambda: answering(gateway, "nick") == "second")
        rest = list(said)
    gateway.deploy_models(*MODELS, **NAMES)
    wait_for(lambda: answering(gateway, "nick") == "first")

    assert before == "first"
    assert response.headers["x-gateway-model"] == "first"
    assert {event["model"] for event in (first, *rest)} == {"nick"}
    assert rest[-1]["choices"][0]["finish_reason"] == "length"
    assert {p.pid for p in gateway.replica_processes("gateway", "Router")} == routers


def test_names_are_listed(gateway: GatewayProcess) -> None:
    """`/v1/models` has aliases and what they stand for, and each as a model of its own."""
    _, listing = gateway.request("GET", "/v1/models")
    _, alone = gateway.request("GET", "/v1/models/nick")
    cards = {card["id"]: card for card in listing["data"]}

    assert cards["nick"] == alone
    assert cards["nick"]["stands_for"] == ["first"]
    assert cards["nick"]["state"] == cards["first"]["state"] == "ready"


def test_a_split_is_sticky_and_its_shadow_measured(gateway: GatewayProcess) -> None:
    """Sessions keep their model, both get some, and copies are counted."""
    split = {"models": {"first": 1, "second": 1}, "shadow": {"model": "sleepy", "fraction": 1}}
    wait_for(lambda: replica_states(gateway, "sleepy") == {}, STARTING_S)
    gateway.deploy_models(*MODELS, splits={"both": split})
    wait_for(lambda: gateway.chat("both", max_tokens=1)[0] == 200)
    sessions = [str(number) for number in range(12)]
    rounds = [
        [answering(gateway, "both", **{"x-session-id": session}) for session in sessions]
        for _ in range(2)
    ]
    _, shadows = gateway.request("GET", "/gateway/shadows")
    gateway.deploy_models(*MODELS, **NAMES)
    wait_for(lambda: gateway.chat("both", max_tokens=1)[0] == 404)

    assert rounds[0] == rounds[1]
    assert set(rounds[0]) == {"first", "second"}
    # Nobody waits for the copies' model: it sleeps on.
    (copies,) = [each["copies"] for each in shadows["data"] if each["shadow"] == "sleepy"]
    assert copies["outcomes"]["skipped"] >= 2 * len(sessions)


def test_a_sleeping_model_wakes_for_all_who_ask(gateway: GatewayProcess) -> None:
    """All that come while it starts are answered by the one engine, and then it sleeps again."""
    wait_for(lambda: replica_states(gateway, "sleepy") == {}, STARTING_S)
    with ThreadPoolExecutor() as pool:
        names = list(pool.map(lambda _: answering(gateway, "sleepy"), range(6)))
    awake = replica_states(gateway, "sleepy")
    wait_for(lambda: replica_states(gateway, "sleepy") == {}, STARTING_S)

    assert names == ["sleepy"] * 6
    assert awake == {"RUNNING": 1}
    assert gateway.request("GET", "/v1/models/sleepy")[1]["state"] == "scaled_to_zero"


def test_a_stream_shows_that_its_model_is_starting(gateway: GatewayProcess) -> None:
    """Comments come before the answer, which is whole."""
    wait_for(lambda: replica_states(gateway, "sleepy") == {}, STARTING_S)
    body = {"model": "sleepy", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with gateway.open("POST", CHAT, body, timeout_s=STARTING_S) as response:
        text = response.read().decode()

    assert response.headers["x-gateway-state"] == "scaled_to_zero"
    assert float(response.headers["x-gateway-expected-start-s"]) >= 1
    assert text.startswith(": the model is starting\n\n")
    assert text.endswith("data: [DONE]\n\n")


def test_no_request_is_lost_when_a_model_falls_asleep(gateway: GatewayProcess) -> None:
    """Requests that come while its last engine goes are answered by the next one."""
    for _ in range(2):
        assert answering(gateway, "sleepy") == "sleepy"
        wait_for(lambda: "RUNNING" not in replica_states(gateway, "sleepy"), STARTING_S)
        assert answering(gateway, "sleepy") == "sleepy"


def test_a_model_that_does_not_start_says_why(gateway: GatewayProcess) -> None:
    """Its clients get the engine's own error, soon, and so does who looks at the list."""
    status, answer = gateway.chat("broken")
    card = gateway.request("GET", "/v1/models/broken")[1]
    again, _ = gateway.chat("broken")

    assert (status, again) == (503, 503)
    assert "no such weights" in answer["error"]["message"]
    assert (card["state"], card["replicas"]) == ("unhealthy", 0)
    assert "no such weights" in card["reason"]


def test_a_fallback_answers_for_a_model_that_has_gone(gateway: GatewayProcess) -> None:
    """With its application taken away, its name is answered by the next of the chain."""
    without = [app for app in MODELS if app["name"] != "first"]
    gateway.deploy_models(*without, **NAMES)
    wait_for(lambda: answering(gateway, "first") == "second")
    gateway.deploy_models(*MODELS, **NAMES)
    wait_for(lambda: answering(gateway, "first") == "first", STARTING_S)
