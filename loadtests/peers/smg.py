"""SGLang's gateway in Rust (Shepherd Model Gateway), with its own defaults but for the policy."""

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from deployments.local import processes
from loadtests.launch import HOST, Unavailable, await_answer, family, pause, running
from loadtests.peers.environment import Environment
from loadtests.targets import Target

ENVIRONMENT = Environment("smg", "1.13.0")
READY_TIMEOUT_S = 30


@contextmanager
def smg(policy: str, engine_ports: Sequence[int]) -> Iterator[Target]:
    """The gateway in front of the engines, once it knows them all.

    Raises:
        Unavailable: it cannot be installed or started here.
    """
    port, metrics_port = processes.free_port(), processes.free_port()
    command = [
        *(ENVIRONMENT.tool("smg"), "launch", "--host", HOST, "--port", port, "--policy", policy),
        *("--worker-urls", *(f"http://{HOST}:{engine_port}" for engine_port in engine_ports)),
        *("--prometheus-port", metrics_port, "--log-level", "error"),
    ]
    with running([str(word) for word in command]) as process:
        await_answer(port, process)
        _await_engines(port, process, len(engine_ports))
        yield Target(f"smg {policy}", port, lambda: family(process), version=ENVIRONMENT.described)


def _await_engines(port: int, process: psutil.Process, wanted: int) -> None:
    """It answers once it knows one engine; a comparison of policies needs all of them."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while (known := _healthy_engines(port)) < wanted:
        if process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline_s:
            raise Unavailable(f"it knows {known} of {wanted} engines")
        pause()


def _healthy_engines(port: int) -> int:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readiness")
        return int(json.loads(connection.getresponse().read())["healthy_workers"])
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return 0
    finally:
        connection.close()
