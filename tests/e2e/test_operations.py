"""What operators rely on, with real vLLM engines: deploys, faults, tensor parallelism."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.e2e.twins import TWINS, deploy_twins
from tests.gateway_process import (
    Document,
    GatewayProcess,
    command_line,
    events,
    model_application,
    wait_for,
)

pytestmark = pytest.mark.e2e

DEVELOPMENT = {"demo": "ready", "demo-embed": "ready"}
ENGINE_ARGS = {"enforce_eager": True, "dtype": "float32", "max_num_seqs": 1}


def demo(name: str, **more: object) -> Document:
    """The demo model under another name."""
    return model_application(
        name=name,
        engine="vllm",
        source="models/demo",
        accelerator="cpu",
        cpus_per_worker=0.25,
        env={"VLLM_CPU_KVCACHE_SPACE": "1"},
        engine_args=ENGINE_ARGS,
        **more,
    )


def engines(gateway: GatewayProcess, app: str) -> set[int]:
    """The process ids of an application's replicas."""
    return {process.pid for process in gateway.replica_processes(app)}


def states(gateway: GatewayProcess) -> dict[str, str]:
    """The state of every model."""
    _, listing = gateway.request("GET", "/v1/models")
    return {model["id"]: model["state"] for model in listing["data"]}


@pytest.fixture(scope="module")
def deployed(gateway: GatewayProcess, dev_config: Document) -> Iterator[Document]:
    """A config edited: the twins gone, a model of two tensor parallel workers added.

    The first test deploys it; after the last one there are the development config's models.
    """
    if TWINS not in states(gateway):
        deploy_twins(gateway, dev_config, 1)
    parallel = demo("parallel", parallelism={"tensor": 2})
    yield {**dev_config, "applications": [*dev_config["applications"], parallel]}
    gateway.deploy(dev_config)
    wait_for(lambda: states(gateway) == DEVELOPMENT, 240)


@pytest.mark.timeout(600)
def test_models_come_and_go_while_a_stream_runs(
    gateway: GatewayProcess, deployed: Document
) -> None:
    """`serve deploy` of an edited file: a stream of an untouched model runs to its end."""
    untouched = engines(gateway, "demo")
    endless = {"model": "demo", "prompt": "1, 2, 3,", "ignore_eos": True, "stream": True}

    with gateway.open("POST", "/v1/completions", {**endless, "max_tokens": 4000}) as response:
        stream = events(response)
        next(stream)
        gateway.deploy(deployed)
        while "parallel" not in states(gateway) or TWINS in states(gateway):
            next(stream)  # raises where the stream ends before the deploy has come through
        *_, last = stream
    wait_for(lambda: states(gateway) == {**DEVELOPMENT, "parallel": "ready"}, 240)

    assert last["choices"][0]["finish_reason"] == "length"
    assert engines(gateway, "demo") == untouched


def test_tensor_parallel_workers_answer_as_one(gateway: GatewayProcess, deployed: Document) -> None:
    """A replica of two workers gives the same answer as one worker, which is in the core, does."""
    workers = {
        model: [
            process
            for replica in gateway.replica_processes(model)
            for process in replica.children(recursive=True)
            if "Worker" in command_line(process)
        ]
        for model in ("parallel", "demo")
    }

    status, answer = gateway.chat("parallel", "Count to ten.", max_tokens=64)

    assert (len(workers["parallel"]), len(workers["demo"])) == (2, 0)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."


def test_a_client_that_leaves_frees_the_engine(gateway: GatewayProcess, deployed: Document) -> None:
    """The engine runs one sequence: the next one is answered because the first was aborted."""
    with gateway.open(
        "POST",
        "/v1/completions",
        {
            "model": "parallel",
            "prompt": "1",
            "max_tokens": 8000,
            "ignore_eos": True,
            "stream": True,
        },
    ) as response:
        began = response.readline()
    left_s = time.monotonic()

    status, answer = gateway.chat("parallel", "Say hello.", max_tokens=8)
    waited_s = time.monotonic() - left_s

    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    assert began.startswith(b"data: ")
    assert waited_s < 10, "the engine went on with what nobody reads"


@pytest.mark.timeout(600)
def test_a_dead_engine_core_is_replaced(gateway: GatewayProcess, deployed: Document) -> None:
    """vLLM's engine core is killed: other models go on, and its own requests wait for the next."""
    (replica,) = gateway.replica_processes("parallel")
    (core,) = [p for p in replica.children() if "EngineCore" in command_line(p)]
    core.kill()
    wait_for(lambda: states(gateway)["parallel"] != "ready")

    other = gateway.chat("demo", "Say hello.")
    messages = [{"role": "user", "content": "Say hello."}]
    body = {"model": "parallel", "messages": messages, "temperature": 0}
    with gateway.open("POST", "/v1/chat/completions", body, timeout_s=240) as response:
        waited = json.loads(response.read())

    assert other[1]["choices"][0]["message"]["content"] == "Hello!"
    assert waited["choices"][0]["message"]["content"] == "Hello!"
    assert replica.pid not in engines(gateway, "parallel")


@pytest.mark.timeout(600)
def test_an_engine_that_cannot_start_leaves_the_others_alone(
    gateway: GatewayProcess, deployed: Document
) -> None:
    """A wrong vLLM argument: the model is unhealthy, `serve status` says why, the others answer."""
    wrong = demo("wrong")
    wrong["args"]["engine_args"] = {"max_num_sequences": 4}
    gateway.deploy({**deployed, "applications": [*deployed["applications"], wrong]})
    wait_for(lambda: states(gateway).get("wrong") == "unhealthy", 240)

    unavailable = gateway.chat("wrong", "Say hello.")
    other = gateway.chat("demo", "Say hello.")
    message = gateway.status()["applications"]["wrong"]["message"]
    gateway.deploy(deployed)

    assert (unavailable[0], unavailable[1]["error"]["code"]) == (503, "model_unavailable")
    assert "max_num_sequences" in unavailable[1]["error"]["message"]
    assert other[0] == 200
    assert "max_num_sequences" in message
    assert "max_num_seqs" in message
