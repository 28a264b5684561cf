"""A gateway config that is wrong, deployed past `gateway check` onto a running gateway."""

import http.client
from collections.abc import Iterator

import pytest

from tests.gateway_process import GatewayProcess, model_application, text_of, wait_for

pytestmark = pytest.mark.integration

MODEL = model_application(name="m", engine="sim", simulation={"step_s": 0.05, "instant": False})
LONG = 100
"""Tokens of an answer that takes five seconds."""
RESTART_S = 120
LINE = "gateway: max_bodi_mb: unknown field, did you mean `max_bodies_mb`?"


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway that knows the model by another name."""
    with shared.models(MODEL, aliases={"x": "m"}) as running:
        yield running


def refused(gateway: GatewayProcess) -> list[str] | None:
    """What operators are told is wrong with the config that came last; None if nobody answers."""
    try:
        status, told = gateway.request("GET", "/gateway/config")
    except (OSError, http.client.HTTPException, ValueError):
        return None  # the router has just gone
    if status != 200:
        return None
    lines: list[str] = told["refused"]["problems"] if told["refused"] else []
    return lines


def test_a_wrong_config_changes_nothing(gateway: GatewayProcess) -> None:
    """The router goes on by the config before, also one that has to start meanwhile."""
    (router,) = gateway.replica_processes("gateway", "Router")
    with gateway.stream("m", "Tell me a story", LONG) as stream:
        next(stream)
        gateway.deploy_models(MODEL, max_bodi_mb=8)
        wait_for(lambda: refused(gateway) == [LINE])
        assert text_of(stream)
    assert gateway.replica_processes("gateway", "Router") == [router]
    assert gateway.status()["applications"]["gateway"]["status"] == "RUNNING"
    assert gateway.chat("x")[0] == 200

    router.kill()
    wait_for(lambda: router not in gateway.replica_processes("gateway", "Router"))
    wait_for(lambda: refused(gateway) == [LINE], RESTART_S)
    wait_for(lambda: gateway.chat("x")[0] == 200)

    gateway.deploy_models(MODEL, aliases={"y": "m"})
    wait_for(lambda: refused(gateway) == [] and gateway.chat("y")[0] == 200)
    assert gateway.chat("x")[0] == 404


def test_no_config_is_one_without_settings(gateway: GatewayProcess) -> None:
    """A file from which the config has been taken out takes effect too."""
    gateway.deploy_models(MODEL, aliases={"z": "m"})
    wait_for(lambda: gateway.chat("z")[0] == 200)
    bare = gateway.beside_resident(MODEL)
    del bare["applications"][0]["deployments"][0]["user_config"]
    gateway.deploy(bare)
    wait_for(lambda: gateway.chat("z")[0] == 404)
