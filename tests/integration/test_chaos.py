"""A short rehearsal of `loadtests.chaos`: all faults at once, and not an answer lost."""

import asyncio
from pathlib import Path

import pytest

from deployments.local.processes import free_port
from loadtests import chaos
from tests.gateway_process import GatewayProcess

pytestmark = pytest.mark.integration

SECONDS = 15.0
SEED = 5


def test_nothing_is_lost_in_chaos(tmp_path: Path) -> None:
    """Engines are killed, hung, slowed and drained; every answer is whole or says why not."""
    port = free_port()
    document = chaos.config(port)
    with GatewayProcess(document, tmp_path, port) as gateway:
        outcome = asyncio.run(chaos.rehearse(gateway, document, SECONDS, SEED))
    assert outcome.trouble.total() > 2, "there was trouble"
    assert outcome.requests.lost == {}
    assert outcome.requests.told.total() <= outcome.requests.sent / 50
    assert outcome.is_good
    actions = {fault["action"] for fault in outcome.faults}
    assert {"retried", "resumed"} <= actions
