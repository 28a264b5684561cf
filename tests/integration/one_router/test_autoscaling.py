"""Models that grow and shrink with their load, on a Ray cluster with simulated engines."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.gateway_process import Document, GatewayProcess, model_application, wait_for

pytestmark = pytest.mark.integration

RATE = 2.0
"""Requests a second."""
SHORT, LONG = 5, 1000
"""Words of a prompt; a long one is a second of prefill, and more, for these engines."""


def sim(name: str, **simulation: object) -> Document:
    """A simulated model's application, which is scaled."""
    return model_application(
        name=name,
        engine="sim",
        autoscaling={"min": 1, "max": 2, "target_utilization": 0.8, "scale_down_delay_s": 5},
        simulation={"step_s": 0.02, "step_s_per_prefill_token": 0.001, **simulation},
    )


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway with two models."""
    with shared.models(sim("brief", max_sequences=8), sim("wordy")) as running:
        yield running


def replicas(gateway: GatewayProcess, model: str) -> int:
    """How many engines of a model there are, be it only starting."""
    return len(gateway.replica_processes(model))


@contextmanager
def load(gateway: GatewayProcess, model: str, words: int) -> Iterator[None]:
    """`RATE` prompts a second, no two of which begin alike; some may be turned away."""
    is_over = threading.Event()

    def send() -> None:
        with ThreadPoolExecutor(64) as pool:
            while not is_over.wait(1 / RATE):
                text = f"{time.monotonic()} " + "lorem " * words
                pool.submit(gateway.chat, model, text, max_tokens=2)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        is_over.set()
        sending.join()


@dataclass(frozen=True)
class Grown:
    """Engines while both models got as many requests a second."""

    wordy: Document
    """What `serve status` said of those whose prompts are long."""
    brief: int


@pytest.fixture(scope="module")
def grown(gateway: GatewayProcess) -> Grown:
    """Two requests a second for each model, until one has grown."""
    with load(gateway, "brief", SHORT), load(gateway, "wordy", LONG):
        wait_for(lambda: replicas(gateway, "wordy") == 2)
        wordy = gateway.status()["applications"]["wordy"]["deployments"]["Engine"]
        return Grown(wordy, replicas(gateway, "brief"))


def test_prompts_of_the_same_rate_scale_out_where_they_are_long(grown: Grown) -> None:
    """The model whose prompts are long has grown, and not the other one."""
    assert grown.brief == 1
    assert sum(grown.wordy["replica_states"].values()) == 2


def test_a_batch_backlog_that_no_engine_may_take_adds_a_replica(gateway: GatewayProcess) -> None:
    """A quarter of an engine stays free of batch: what routers hold back asks for a replica."""
    with ThreadPoolExecutor(60) as pool:
        for _ in range(60):
            pool.submit(_batch, gateway)
        wait_for(lambda: replicas(gateway, "brief") == 2)


def test_a_model_shrinks_when_its_load_is_over(gateway: GatewayProcess, grown: Grown) -> None:
    """The engine that long prompts have added goes when there are none."""
    del grown
    wait_for(lambda: replicas(gateway, "wordy") == 1)


def _batch(gateway: GatewayProcess) -> None:
    body = {"model": "brief", "prompt": f"{time.monotonic()}", "max_tokens": 100}
    headers = {"x-gateway-priority": "batch"}
    with gateway.open("POST", "/v1/completions", body, headers=headers) as response:
        response.read()
