"""A gateway with one router, to which each module adds its own models for a while."""

from collections.abc import Iterator

import pytest

from tests.gateway_process import RESIDENT, GatewayProcess, document, gateway_application


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The gateway, with the resident model only."""
    config = document(gateway_application(), RESIDENT)
    with GatewayProcess(config, tmp_path_factory.mktemp("one_router")) as running:
        yield running
