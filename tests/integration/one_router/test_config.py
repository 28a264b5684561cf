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
    (router,) = told["data"]
    lines: list[str] = router["refused"]["problems"] if router["refused"] else []
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


UNSET = model_application(name="unset", engine="sim", env={"HF_TOKEN": "env:NOT_SET_ANYWHERE"})
WRONG = model_application(
    name="wrong", engine="vllm", source="org/x", engine_args={"max_num_sequences": 4}
)
UNSET_LINE = 'model "unset": env.HF_TOKEN: NOT_SET_ANYWHERE is not set'
WRONG_LINE = (
    'model "wrong": engine_args.max_num_sequences: vLLM 0.32 has no such argument, did you mean'
    " `max_num_seqs`?"
)


def reasons(gateway: GatewayProcess) -> dict[str, str]:
    """What clients are told of each model that is unhealthy."""
    _, listing = gateway.request("GET", "/v1/models")
    return {card["id"]: card["reason"] for card in listing["data"] if card["state"] == "unhealthy"}


def test_a_wrong_entry_is_one_line_for_clients_and_operators(gateway: GatewayProcess) -> None:
    """Whether its application cannot be built, or its engine does not start."""
    gateway.deploy_models(MODEL, UNSET, WRONG)
    told = {
        "unset": f"its engine does not start: {UNSET_LINE}",
        "wrong": f"its entry is wrong: {WRONG_LINE}",
    }
    wait_for(lambda: reasons(gateway) == told)

    def engine() -> dict[str, str]:
        found: dict[str, str] = gateway.status()["applications"]["unset"]["deployments"]["Engine"]
        return found

    wait_for(lambda: engine()["status"] == "DEPLOY_FAILED")
    assert engine()["message"].splitlines()[1:] == [
        f"RuntimeError: deployments.engine_failure.EngineStartFailed: {UNSET_LINE}"
    ]
    assert gateway.status()["applications"]["wrong"]["message"].splitlines()[1:] == [WRONG_LINE]
    assert reasons(gateway) == told
    status, error = gateway.chat("wrong")
    assert status == 503
    assert WRONG_LINE in error["error"]["message"]
    assert gateway.chat("m")[0] == 200

    gateway.deploy_models(MODEL)
    wait_for(lambda: reasons(gateway) == {})
    assert gateway.chat("wrong")[0] == 404
