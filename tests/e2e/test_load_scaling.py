"""Real vLLM engines that come and go with the load."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.e2e.twins import TWINS, deploy_twins
from tests.gateway_process import Document, GatewayProcess, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CLIENTS = 32
"""Twice as many as one engine runs at the same time."""
FEW_CLIENTS = 2
"""While the second engine starts: one that starts slowly is kept long."""


@contextmanager
def load(gateway: GatewayProcess, clients: int, statuses: list[int]) -> Iterator[None]:
    """Clients that ask one thing after the other until it is over."""
    is_over = threading.Event()

    def ask(client: int) -> None:
        while not is_over.is_set():
            text = f"Hello from client {client}, request {len(statuses)}"
            statuses.append(gateway.chat(TWINS, text, max_tokens=300, ignore_eos=True)[0])

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, client) for client in range(clients)]
        try:
            yield
        finally:
            is_over.set()
            for each in asking:
                each.result()


def test_a_second_engine_comes_with_the_load_and_goes_after_it(
    gateway: GatewayProcess, dev_config: Document
) -> None:
    """One, two, and one again in `serve status`, and every request is answered."""

    def engines(*states: str) -> int:
        deployments = gateway.status()["applications"][TWINS]["deployments"]
        if "Engine" not in deployments:
            return 0  # Serve is still reading the config
        found: dict[str, int] = deployments["Engine"]["replica_states"]
        return sum(found.get(state, 0) for state in states)

    deploy_twins(gateway, dev_config, 1)
    deploy_twins(gateway, dev_config, None)
    wait_for(lambda: engines("RUNNING") == 1)
    before, statuses = engines("STARTING", "RUNNING"), list[int]()
    with load(gateway, CLIENTS, statuses):
        wait_for(lambda: engines("STARTING", "RUNNING") == 2)
    with load(gateway, FEW_CLIENTS, statuses):
        wait_for(lambda: engines("RUNNING") == 2, 180)
    with load(gateway, CLIENTS, statuses):
        enough = len(statuses) + 2 * CLIENTS
        wait_for(lambda: len(statuses) >= enough)
    wait_for(lambda: engines("RUNNING") == 1, 400)  # twice what a start took
    statuses.append(gateway.chat(TWINS, max_tokens=5)[0])

    assert before == 1
    assert set(statuses) == {200}
