"""LiteLLM's proxy, without a database: a worker for each core, as its own advice for production."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from deployments.local import processes
from loadtests.launch import HOST, MODEL, await_answer, process_tree, running
from loadtests.peers.environment import Environment
from loadtests.targets import LoadTarget

ENVIRONMENT = Environment("litellm", "1.106.2", extra="[proxy]")
VARIABLES = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would download the list of prices
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    # Without a master key: no other contender checks one either.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


@contextmanager
def litellm(engine_port: int) -> Iterator[LoadTarget]:
    """The proxy in front of one engine.

    Raises:
        Unavailable: it cannot be installed or started here.
    """
    port = processes.free_port()
    with tempfile.TemporaryDirectory(prefix="litellm-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(yaml.safe_dump(_config(engine_port)))
        command = [
            *(ENVIRONMENT.tool("litellm"), "--config", config, "--host", HOST, "--port", port),
            *("--num_workers", os.cpu_count() or 1, "--telemetry", "False"),
        ]
        with running([str(word) for word in command], VARIABLES) as process:
            await_answer(port, process)
            yield LoadTarget(
                "litellm", port, lambda: process_tree(process), version=ENVIRONMENT.described
            )


def _config(engine_port: int) -> dict[str, object]:
    parameters = {"model": f"hosted_vllm/{MODEL}", "api_base": f"http://{HOST}:{engine_port}/v1"}
    return {"model_list": [{"model_name": MODEL, "litellm_params": parameters}]}
