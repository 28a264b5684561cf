"""vLLM's router in Rust, with its own defaults but for the policy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deployments.local import processes
from loadtests.launch import HOST, await_answer, family, running
from loadtests.peers.environment import Environment
from loadtests.targets import Target

ENVIRONMENT = Environment("vllm-router", "0.1.17")


@contextmanager
def vllm_router(policy: str, engine_ports: Sequence[int]) -> Iterator[Target]:
    """The router in front of the engines.

    Raises:
        Unavailable: it cannot be installed or started here.
    """
    port, metrics_port = processes.free_port(), processes.free_port()
    command = [
        *(ENVIRONMENT.tool("vllm-router"), "--host", HOST, "--port", port, "--policy", policy),
        *("--worker-urls", *(f"http://{HOST}:{engine_port}" for engine_port in engine_ports)),
        *("--prometheus-port", metrics_port, "--log-level", "error"),
    ]
    with running([str(word) for word in command]) as process:
        await_answer(port, process)
        yield Target(
            f"vllm-router {policy}", port, lambda: family(process), version=ENVIRONMENT.described
        )
