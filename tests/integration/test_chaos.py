"""A short run of `loadtests.chaos`: all faults at once, and not an answer lost."""

import asyncio
from pathlib import Path

import pytest

from deployments.local.processes import free_port
from loadtests import chaos
from loadtests.fault_injection import FRONT_DOOR
from tests.gateway_process import GatewayProcess

pytestmark = pytest.mark.integration

SECONDS = 15.0
SEED = 5


def test_nothing_is_lost_in_chaos(tmp_path: Path) -> None:
    """Engines, routers and HAProxy fail; every answer is whole or an error, or was cut by that."""
    port = free_port()
    document = chaos.config(port)
    with GatewayProcess(document, tmp_path, port) as gateway:
        result = asyncio.run(chaos.run(gateway, document, SECONDS, SEED))
    assert result.injected.total() > 2, "there were faults"
    assert result.requests.lost == {}
    assert any(result.injected[kind] for kind in FRONT_DOOR), "a front door was killed"
    assert result.requests.errors.total() <= result.requests.sent / 50
    assert result.is_good
    actions = {fault["action"] for fault in result.faults}
    assert {"retried", "resumed"} & actions, "a killed router has taken its counts along"
