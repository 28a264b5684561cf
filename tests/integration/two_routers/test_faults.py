"""Faults on a running system: what breaks, and what clients see of it, which is nothing."""

import asyncio
import copy
import random
import signal
from collections.abc import Awaitable, Callable, Iterator

import httpx
import psutil
import pytest

from loadtests.checked_load import CheckedLoad, Counts
from tests.gateway_process import (
    Document,
    GatewayProcess,
    command_line,
    model_application,
    wait_for,
)

pytestmark = pytest.mark.integration

CLIENTS = 8
BEFORE_S = 1.0
"""Of load before anything happens."""
AFTER_S = 2.0
MODEL = model_application(name="m", engine="sim", replicas=3, drain_timeout_s=30)
SMALL = model_application(
    name="small",
    engine="sim",
    replicas=1,
    timeout_s=30,
    hang_timeout_s=8,
    queue={"max_wait_s": 1.0, "max_requests": 6},
    simulation={"max_sequences": 4, "step_s": 0.02},
)


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A model of three engines, and a small one."""
    with shared.models(MODEL, SMALL) as running:
        yield running


def under_load(gateway: GatewayProcess, happening: Callable[[], Awaitable[None]]) -> Counts:
    """What became of requests before, during and after something that happens."""

    async def run() -> Counts:
        load = CheckedLoad(gateway.url, "m", random.Random(1))  # noqa: S311 - makes requests
        is_over = asyncio.Event()
        loading = asyncio.create_task(load.run(CLIENTS, is_over.is_set))
        await asyncio.sleep(BEFORE_S)
        await happening()
        await asyncio.sleep(AFTER_S)
        is_over.set()
        await loading
        return load.counts

    return asyncio.run(run())


def assert_nothing_lost(counts: Counts) -> None:
    """Every request was answered, in full and rightly."""
    assert (counts.lost, counts.errors, counts.shed) == ({}, {}, 0)
    assert counts.succeeded == counts.sent > CLIENTS


def engines(gateway: GatewayProcess) -> list[psutil.Process]:
    """The processes of the larger model's engines."""
    return gateway.replica_processes("m")


def faults(gateway: GatewayProcess) -> set[tuple[str, str]]:
    """Reasons of faults, and what was done, at one of the routers."""
    _, counts = gateway.request("GET", "/gateway/faults")
    return {(fault["reason"], fault["action"]) for fault in counts["data"]}


async def until(condition: Callable[[], object]) -> None:
    """Wait for something to come about, without holding the load up."""
    await asyncio.to_thread(wait_for, condition)


def test_a_killed_engine_is_not_noticed(gateway: GatewayProcess) -> None:
    """Streams are carried on to the last byte, and requests answered elsewhere."""

    async def kill() -> None:
        victim = engines(gateway)[0]
        victim.kill()
        await until(lambda: len(engines(gateway)) == 3 and victim not in engines(gateway))
        await asyncio.sleep(AFTER_S)

    async def kill_two() -> None:
        await kill()
        await kill()

    assert_nothing_lost(under_load(gateway, kill_two))
    wait_for(lambda: ("broke_off", "resumed") in faults(gateway))


def test_a_hanging_engine_is_not_waited_for(gateway: GatewayProcess) -> None:
    """What it had is answered elsewhere while it hangs, and it comes back when it does."""

    async def hang() -> None:
        victim = engines(gateway)[0]
        victim.send_signal(signal.SIGSTOP)
        try:
            await until(lambda: any(reason == "stuck" for reason, _ in faults(gateway)))
        finally:
            victim.send_signal(signal.SIGCONT)

    assert_nothing_lost(under_load(gateway, hang))


def test_a_hung_engine_is_shown_and_replaced(gateway: GatewayProcess) -> None:
    """Its model is `not_responding` until Serve has another engine, and no process is left."""
    (victim,) = gateway.replica_processes("small")
    victim.send_signal(signal.SIGSTOP)

    wait_for(lambda: card(gateway, "small")["state"] == "not_responding")
    reason = card(gateway, "small")["reason"]
    wait_for(lambda: not victim.is_running())
    wait_for(lambda: card(gateway, "small")["state"] == "ready")

    assert reason == "its engine does not respond, and is replaced unless it recovers"
    assert gateway.chat("small", max_tokens=2)[0] == 200
    wait_for(lambda: f"died (process {victim.pid})" in gateway.log)


def card(gateway: GatewayProcess, model: str) -> Document:
    """How a model stands, by one of the routers."""
    found: Document = gateway.request("GET", f"/v1/models/{model}")[1]
    return found


def test_a_rolling_update_cuts_nothing(gateway: GatewayProcess) -> None:
    """Every engine and the router are replaced, by another configuration of each."""
    before = {process.pid for process in engines(gateway)}
    model = copy.deepcopy(MODEL)
    model["args"]["simulation"] = {"max_sequences": 63}
    changed = gateway.beside_resident(model, SMALL)

    async def deploy() -> None:
        front = copy.deepcopy(changed["applications"][0])
        front["deployments"][0]["ray_actor_options"] = {"num_cpus": 0.21}
        applications = [front, *changed["applications"][1:]]
        await replace_routers(gateway, {**changed, "applications": applications})
        await until(lambda: before.isdisjoint({p.pid for p in engines(gateway)}))

    assert_nothing_lost(under_load(gateway, deploy))
    asyncio.run(replace_routers(gateway, changed))


async def replace_routers(gateway: GatewayProcess, document: Document) -> None:
    """Deploy a config with other routers, and wait until those before it have drained."""
    before = {process.pid for process in routers(gateway)}
    await asyncio.to_thread(gateway.deploy, document)
    await until(lambda: is_running(gateway))
    await until(lambda: before.isdisjoint({process.pid for process in routers(gateway)}))


def routers(gateway: GatewayProcess) -> list[psutil.Process]:
    """The processes of the routers."""
    return gateway.replica_processes("gateway", "Router")


def is_running(gateway: GatewayProcess) -> bool:
    """Whether Serve has finished deploying."""
    applications: Document = gateway.status()["applications"]
    statuses = {application["status"] for application in applications.values()}
    return statuses == {"RUNNING"}


def test_a_dead_controller_is_not_missed(gateway: GatewayProcess) -> None:
    """Serve's controller is killed; models go on answering until Ray has started another."""

    def controllers() -> list[psutil.Process]:
        return [p for p in gateway.session.members if "ray::ServeController" in command_line(p)]

    async def kill() -> None:
        (controller,) = controllers()
        controller.kill()
        await until(lambda: controllers() and controller not in controllers())

    assert_nothing_lost(under_load(gateway, kill))
    wait_for(lambda: is_running(gateway))


def test_an_overloaded_model_turns_requests_away(gateway: GatewayProcess) -> None:
    """Five times what it can run: some are answered, the others are told when to come back."""

    async def chat_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
            requests = [
                http.post("/v1/chat/completions", json=chat_body("small", 30)) for _ in range(30)
            ]
            return await asyncio.gather(*requests)

    answers = asyncio.run(chat_all())
    shed = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in shed)
    assert {answer.json()["error"]["code"] for answer in shed} == {"overloaded"}
    assert all("waiting" in a.json()["error"]["message"] or "waits" in a.text for a in shed)


def chat_body(model: str, max_tokens: int, **more: object) -> Document:
    """A chat's body."""
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, **more}


def test_a_deadline_is_kept(gateway: GatewayProcess) -> None:
    """504 with `timeout`, or an event of that code at the end of what came."""
    headers = {"x-request-timeout-s": "0.5"}
    with httpx.Client(base_url=gateway.url, timeout=60, headers=headers) as http:
        whole = http.post("/v1/chat/completions", json=chat_body("m", 2000))
        streamed = http.post("/v1/chat/completions", json=chat_body("m", 2000, stream=True))
    assert (whole.status_code, whole.json()["error"]["code"]) == (504, "timeout")
    assert streamed.status_code == 200
    *_, error, done, rest = streamed.text.split("\n\n")
    assert '"code":"timeout"' in error
    assert (done, rest) == ("data: [DONE]", "")
