"""A short run of `loadtests.abuse` on real engines: a hostile client harms nobody but itself."""

import asyncio

import pytest

from loadtests import abuse
from tests.e2e.twins import TWINS, deploy_twins
from tests.gateway_process import Document, GatewayProcess

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),  # a second engine is started before the test begins
]

SECONDS = 6.0
TIMEOUT_S = 12.0
"""After which the hostile client leaves, and sends what is next."""
SEED = 3


def test_a_hostile_client_harms_nobody(gateway: GatewayProcess, dev_config: Document) -> None:
    """Nothing of a bystander's fails, and no engine is ejected, replaced or sent to an address."""
    deploy_twins(gateway, dev_config, 2)
    result = asyncio.run(abuse.run(gateway, SECONDS, SEED, TWINS, TIMEOUT_S))
    assert result.flaws == []
    assert all(found.total() > 0 for found in result.answers.values()), "each attack was sent"
