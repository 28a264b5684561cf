"""Routers in Rust, with their own defaults except for the policy: vLLM's, and SGLang's (smg)."""

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from deployments.local import processes
from loadtests.launch import HOST, await_answer, await_ready, process_tree, running
from loadtests.peers.environment import Environment
from loadtests.targets import LoadTarget

VLLM_ROUTER = Environment("vllm-router", "0.1.17")
SMG = Environment("smg", "1.13.0")
READY_TIMEOUT_S = 30


@contextmanager
def vllm_router(policy: str, engine_ports: Sequence[int]) -> Iterator[LoadTarget]:
    """vLLM's router in front of engines.

    Raises:
        Unavailable: it cannot be installed or started here.
    """
    port = processes.free_port()
    command = [str(VLLM_ROUTER.tool("vllm-router")), *_options(port, policy, engine_ports)]
    with running(command) as process:
        await_answer(port, process)
        yield _target(VLLM_ROUTER, policy, port, process)


@contextmanager
def smg(policy: str, engine_ports: Sequence[int]) -> Iterator[LoadTarget]:
    """SGLang's gateway (Shepherd Model Gateway) in front of engines, once it knows them all.

    Raises:
        Unavailable: it cannot be installed or started here.
    """
    port = processes.free_port()
    command = [str(SMG.tool("smg")), "launch", *_options(port, policy, engine_ports)]
    with running(command) as process:
        await_answer(port, process)  # it answers as soon as it knows one engine
        await_ready(lambda: _missing_engines(port, len(engine_ports)), process, READY_TIMEOUT_S)
        yield _target(SMG, policy, port, process)


def _options(port: int, policy: str, engine_ports: Sequence[int]) -> list[str]:
    return [
        *("--host", HOST, "--port", str(port), "--policy", policy),
        *("--worker-urls", *(f"http://{HOST}:{engine_port}" for engine_port in engine_ports)),
        *("--prometheus-port", str(processes.free_port()), "--log-level", "error"),
    ]


def _target(router: Environment, policy: str, port: int, process: psutil.Process) -> LoadTarget:
    name = f"{router.package} {policy}"
    return LoadTarget(name, port, lambda: process_tree(process), version=router.described)


def _missing_engines(port: int, wanted: int) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readiness")
        known = int(json.loads(connection.getresponse().read())["healthy_workers"])
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        known = 0
    finally:
        connection.close()
    return "" if known >= wanted else f"it knows {known} of {wanted} engines"
