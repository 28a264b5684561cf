"""Adapters on a running system: requests settle where theirs is loaded."""

import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess, model_application, wait_for

pytestmark = pytest.mark.integration

REPLICAS = 4
MOST_LOADED = 2
ADAPTERS = [f"adapter-{number}" for number in range(REPLICAS * MOST_LOADED)]
MODEL = model_application(
    name="base",
    engine="sim",
    replicas=REPLICAS,
    adapters=[{"name": name, "source": "anywhere"} for name in ADAPTERS],
    max_loaded_adapters=MOST_LOADED,
    simulation={"adapter_load_s": 0.3, "step_s": 0.005},
)


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A model on four replicas, with room for all of its adapters together."""
    with shared.models(MODEL) as running:
        wait_for(lambda: cards(running)["base"]["replicas"] == REPLICAS)
        yield running


def cards(gateway: GatewayProcess) -> dict[str, Any]:
    """What `/v1/models` says of the model and of each of its adapters."""
    _, listing = gateway.request("GET", "/v1/models")
    return {card["id"]: card for card in listing["data"] if card["id"] in {"base", *ADAPTERS}}


def ask(gateway: GatewayProcess, model: str) -> tuple[str, str]:
    """Who answered, and as what."""
    body = {"model": model, "prompt": "Hello", "max_tokens": 4}
    with gateway.open("POST", "/v1/completions", body) as response:
        assert response.status == 200, response.read()
        return response.headers["x-gateway-replica"], json.loads(response.read())["model"]


def test_every_adapter_is_a_model_of_its_own(gateway: GatewayProcess) -> None:
    """`/v1/models` lists them with the model they belong to, and each answers in its own name."""
    listed = cards(gateway)

    assert list(listed) == ["base", *ADAPTERS]
    assert {listed[name]["parent"] for name in ADAPTERS} == {"base"}
    assert {listed[name]["state"] for name in ADAPTERS} == {"ready"}
    assert ask(gateway, "adapter-3")[1] == "adapter-3"
    assert ask(gateway, "base")[1] == "base"


def test_requests_settle_where_their_adapter_is(gateway: GatewayProcess) -> None:
    """After a while nothing is loaded any more: each adapter has its replica, each replica two."""
    rng = random.Random(1)  # noqa: S311 - reproducible, not secret
    homes: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(4) as clients:
        for _ in range(16):
            names = rng.sample(ADAPTERS, len(ADAPTERS))
            for name, answer in zip(
                names, clients.map(lambda n: ask(gateway, n), names), strict=True
            ):
                homes[name].append(answer[0])
    moves = {
        name: sum(a != b for a, b in itertools.pairwise(replicas))
        for name, replicas in homes.items()
    }
    last = Counter(replicas[-1] for replicas in homes.values())
    loaded = {
        name: card["loaded_replicas"] for name, card in cards(gateway).items() if name != "base"
    }

    assert sum(moves.values()) <= len(ADAPTERS), homes
    assert all(len(set(replicas[-4:])) == 1 for replicas in homes.values()), homes
    assert set(last.values()) == {MOST_LOADED}
    assert set(loaded.values()) == {1}
