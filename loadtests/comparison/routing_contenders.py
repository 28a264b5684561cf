"""Contenders of the routing comparison, each in front of eight simulated engines."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from deployments.local import processes
from gateway.simulation.trace import BLOCK_TOKENS
from loadtests.comparison.trace_slices import TIME_SCALE, TOKEN_SCALE
from loadtests.launch import MODEL, Unavailable, await_answer, running
from loadtests.peers.rust_routers import smg, vllm_router
from loadtests.targets import LoadTarget, local_gateway, serve_config

ENGINES = 8
KV_BLOCKS = 1000
"""KV cache of each engine, in the workload's blocks."""
SIMULATION: Mapping[str, float] = {
    "step_s": 0.012 * TOKEN_SCALE,
    "step_s_per_prefill_token": 0.0001 * TOKEN_SCALE,
    "step_s_per_sequence": 0.0002 * TOKEN_SCALE,
    "step_tokens": 4096,
    "max_sequences": 64,
    "kv_tokens": KV_BLOCKS * BLOCK_TOKENS // TOKEN_SCALE,
    "max_model_len": KV_BLOCKS * BLOCK_TOKENS // TOKEN_SCALE,
    "time_scale": TIME_SCALE,
}
"""The engines of `gateway simulate`, with tokens that stand for several.

The number of tokens in a step is not scaled: steps of a few tokens would be mostly overhead.
"""
REQUEST_TIMEOUT_S = 15.0
"""Seconds of the clock; `queue.max_wait_s` is as long, as no other router rejects requests."""

POLICIES = ("marginal", "least-pending", "round-robin", "prefix-affinity")
"""Policies of this gateway, each with a model of its own."""
PEERS: Mapping[str, Callable[[str, Sequence[int]], AbstractContextManager[LoadTarget]]] = {
    "vllm-router": vllm_router,
    "smg": smg,
}
"""Other routers."""
PEERS_POLICY = "cache_aware"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contender:
    """A router that requests can be sent to."""

    name: str
    port: int
    model: str
    version: str = ""


class Contenders:
    """Contenders that are running, and why the others are not."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.running: list[Contender] = []
        self.missing: dict[str, str] = {}

    def start(self, names: Sequence[str]) -> None:
        """Start contenders by name: policies have engines of their own, peers share theirs."""
        policies = [name for name in names if name in POLICIES]
        if policies and (port := self._started(policies, _gateway(policies))):
            self.running += [Contender(name, port, name) for name in policies]
        peers = [name for name in names if name in PEERS]
        if peers and (ports := self._started(peers, _engines())):
            for name in peers:
                self._add_peer(name, ports)
        self.running.sort(key=lambda contender: names.index(contender.name))

    def _add_peer(self, name: str, engine_ports: Sequence[int]) -> None:
        if target := self._started([name], PEERS[name](PEERS_POLICY, engine_ports)):
            version = f"{target.version} {PEERS_POLICY}"
            self.running.append(Contender(name, target.port, MODEL, version))

    def _started(self, names: Sequence[str], starting: AbstractContextManager[T]) -> T | None:
        """Start something that some contenders need; None if it does not start."""
        try:
            return self._stack.enter_context(starting)
        except Unavailable as error:
            self.missing |= dict.fromkeys(names, str(error))
            return None


@contextmanager
def _gateway(policies: Sequence[str]) -> Iterator[int]:
    """Port of a deployed gateway with a model for each policy."""
    entries = [_entry(policy) for policy in policies]
    with local_gateway(serve_config(processes.free_port(), *entries)) as gateway:
        yield gateway.port


def _entry(policy: str) -> dict[str, object]:
    return {
        "name": policy,
        "engine": "sim",
        "replicas": ENGINES,
        "cpus_per_worker": 0.01,
        "routing": {"policy": policy},
        "queue": {"max_wait_s": REQUEST_TIMEOUT_S},
        "simulation": dict(SIMULATION),
    }


@contextmanager
def _engines() -> Iterator[list[int]]:
    """Ports of engines without keys."""
    with ExitStack() as stack:
        started = []
        for _ in range(ENGINES):
            port = processes.free_port()
            words = ["deployments.engines.sim", "--model", MODEL, "--port", str(port)]
            command = [sys.executable, "-m", *words, "--simulation", json.dumps(dict(SIMULATION))]
            started.append((port, stack.enter_context(running(command))))
        for port, process in started:
            await_answer(port, process)
        yield [port for port, _ in started]
