"""A gateway with two routers and State, to which each module adds its own models for a while."""

from collections.abc import Iterator

import pytest

from tests.gateway_process import RESIDENT, GatewayProcess, document, gateway_application


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The gateway, with the resident model only."""
    front = gateway_application()
    front["deployments"][0]["num_replicas"] = 2
    front["args"] = {"state": {}}
    config = document(front, RESIDENT)
    with GatewayProcess(config, tmp_path_factory.mktemp("two_routers")) as running:
        yield running
