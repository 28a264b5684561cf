"""The check for machines with GPUs: its deployments, its report, its adapter."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from safetensors.numpy import load_file

from gateway.config.loader import load_config
from gateway.config.vllm import VllmEntry
from loadtests.gpu_check.adapters import write_neutral_adapter
from loadtests.gpu_check.client import CheckedGateway, read_events
from loadtests.gpu_check.document import ADAPTER, model_entry, tensor_entry
from loadtests.gpu_check.machine import GpuMachine
from loadtests.gpu_check.report import CheckedStep, Outcome, render
from loadtests.gpu_check.steps import Skipped, StepFailed, answer_step, image_step, tensor_step
from loadtests.targets import serve_config

DEMO = Path(__file__).parents[3] / "models" / "demo"
MACHINE = GpuMachine(["H200, 141 GB, 580"], "", {"ray": "2.60.0"}, "Linux")


@pytest.mark.parametrize(
    ("gpus", "gpu_fraction", "tensor"), [(0, 1.0, 1), (1, 0.4, 1), (2, 1.0, 1), (8, 1.0, 2)]
)
def test_its_deployments_are_valid(
    tmp_path: Path, gpus: int, gpu_fraction: float, tensor: int
) -> None:
    """Two replicas fit on the GPUs that there are; two GPUs run the model together."""
    entry = model_entry(str(DEMO), str(DEMO / "pirate"), gpus)
    file = tmp_path / "check.yaml"
    written = tensor_entry(entry) if tensor > 1 else entry
    file.write_text(yaml.safe_dump(serve_config(8000, written)))

    (model,) = load_config(file).models

    assert isinstance(model.entry, VllmEntry)
    assert model.entry.parallelism.tensor == tensor
    assert model.entry.gpu_fraction == gpu_fraction
    assert model.entry.max_replicas == (1 if tensor > 1 else 2)


def test_the_adapter_that_it_makes_changes_nothing(tmp_path: Path) -> None:
    """Its product is zero, and it has the model's shapes."""
    folder = write_neutral_adapter(str(DEMO), tmp_path / "adapter")
    config = json.loads((DEMO / "config.json").read_text())

    tensors = load_file(folder / "adapter_model.safetensors")
    described = json.loads((folder / "adapter_config.json").read_text())

    second = [tensor for name, tensor in tensors.items() if "lora_B" in name]
    first = [tensor for name, tensor in tensors.items() if "lora_A" in name]
    assert len(first) == len(second) == config["num_hidden_layers"]
    assert {tensor.shape[1] for tensor in first} == {config["hidden_size"]}
    assert {tensor.shape[1] for tensor in second} == {described["r"]}
    assert not any(tensor.any() for tensor in second)


def test_the_report_has_each_step_with_what_was_expected() -> None:
    """A cell stays on its line, whatever an error says."""
    failed = CheckedStep("resume", "it goes on", Outcome.FAILED, "boom |\n line", 1.25)

    lines = render(MACHINE, "m", [failed]).splitlines()

    assert "0 passed, 1 failed, 0 skipped. Model: `m`." in lines
    assert "| resume | it goes on | FAILED | 1.2 | boom \\| line |" in lines
    assert "- GPU: H200, 141 GB, 580" in lines


def test_a_stream_with_an_error_event_is_seen() -> None:
    """Text so far, no reason to end, and the message."""
    lines = [
        'data: {"choices": [{"delta": {"content": "a"}}]}',
        "",
        ": alive",
        'data: {"error": {"message": "gone"}}',
        "data: [DONE]",
    ]

    answer = read_events(iter(lines))

    assert (answer.text, answer.finish_reason, answer.error) == ("a", None, "gone")


@pytest.fixture
def answers() -> list[str]:
    """What the gateway answers in turn, unstreamed."""
    return []


@pytest.fixture
def gateway(answers: list[str]) -> Iterator[CheckedGateway]:
    """A gateway that answers so, and streams `same`."""

    def respond(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content).get("stream"):
            event = {"choices": [{"delta": {"content": "same"}, "finish_reason": "stop"}]}
            return httpx.Response(200, text=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")
        message = {"message": {"content": answers.pop(0)}}
        usage = {"prompt_tokens": 3, "completion_tokens": 1}
        return httpx.Response(200, json={"choices": [message], "usage": usage})

    with httpx.Client(base_url="http://g", transport=httpx.MockTransport(respond)) as http:
        yield CheckedGateway(http)


def test_equal_answers_pass(gateway: CheckedGateway, answers: list[str]) -> None:
    """The step says what it saw."""
    answers += ["same", "same"]

    assert answer_step(gateway) == "3 + 1 tokens: 'same'"


@pytest.mark.parametrize(
    ("given", "said"),
    [(["", ""], "empty"), (["same", "other"], "differ"), (["x", "x"], "the stream differs")],
)
def test_wrong_answers_fail(
    gateway: CheckedGateway, answers: list[str], given: list[str], said: str
) -> None:
    """The step says how."""
    answers += given

    with pytest.raises(StepFailed, match=said):
        answer_step(gateway)


def test_what_cannot_be_tried_here_is_skipped(gateway: CheckedGateway) -> None:
    """With a reason, and without a failure."""
    with pytest.raises(Skipped, match="needs two GPUs, here are 1"):
        tensor_step(gateway, {}, 8000, 1, {})
    with pytest.raises(Skipped, match="Docker"):
        image_step("i", None)


def test_the_adapter_is_served_by_its_name() -> None:
    """Steps ask for it."""
    adapters = model_entry("m", "a", 1)["adapters"]
    assert adapters == [{"name": ADAPTER, "source": "a"}]
