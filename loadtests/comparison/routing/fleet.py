"""What the routing comparison compares, started: each contender in front of eight engines."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from deployments.local import processes
from gateway.simulation.trace import BLOCK_TOKENS
from loadtests.comparison.routing.stretches import SPEED, TOKENS
from loadtests.launch import MODEL, Unavailable, await_answer, running
from loadtests.peers.smg import smg
from loadtests.peers.vllm_router import vllm_router
from loadtests.targets import Target, local_gateway, serve_config

ENGINES = 8
KV_BLOCKS = 1000
"""Of the workload's, in each engine."""
SIMULATION: Mapping[str, float] = {
    "step_s": 0.012 * TOKENS,
    "step_s_per_prefill_token": 0.0001 * TOKENS,
    "step_s_per_sequence": 0.0002 * TOKENS,
    "step_tokens": 4096,
    "max_sequences": 64,
    "kv_tokens": KV_BLOCKS * BLOCK_TOKENS // TOKENS,
    "max_model_len": KV_BLOCKS * BLOCK_TOKENS // TOKENS,
    "time_scale": SPEED,
}
"""The engines of `gateway simulate`, with tokens that stand for several.

They take as many tokens in a step as there: steps of a few tokens would be mostly overhead.
"""
PATIENCE_S = 15.0
"""How long clients wait, by the clock; nobody is turned away before, as no other router does so."""

POLICIES = ("marginal", "least-pending", "round-robin", "prefix-affinity")
"""Of this gateway, a model each."""
PEERS: Mapping[str, Callable[[str, Sequence[int]], AbstractContextManager[Target]]] = {
    "vllm-router": vllm_router,
    "smg": smg,
}
"""Other routers, with the policy that knows of caches."""
PEERS_POLICY = "cache_aware"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that can be sent requests."""

    name: str
    port: int
    model: str
    version: str = ""


class Fleet:
    """The contenders that run, and why the others do not."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.contenders: list[Contender] = []
        self.missing: dict[str, str] = {}

    def start(self, names: Sequence[str]) -> None:
        """Start contenders by their names: policies have engines of their own, peers share some."""
        policies = [name for name in names if name in POLICIES]
        if policies and (port := self._had(policies, _gateway(policies))):
            self.contenders += [Contender(name, port, name) for name in policies]
        peers = [name for name in names if name in PEERS]
        if peers and (ports := self._had(peers, _engines())):
            for name in peers:
                self._add_peer(name, ports)
        self.contenders.sort(key=lambda contender: names.index(contender.name))

    def _add_peer(self, name: str, engine_ports: Sequence[int]) -> None:
        if target := self._had([name], PEERS[name](PEERS_POLICY, engine_ports)):
            version = f"{target.version} {PEERS_POLICY}"
            self.contenders.append(Contender(name, target.port, MODEL, version))

    def _had(self, names: Sequence[str], started: AbstractContextManager[T]) -> T | None:
        """What is needed for some contenders; nothing, and a note of why, where it fails."""
        try:
            return self._stack.enter_context(started)
        except Unavailable as error:
            self.missing |= dict.fromkeys(names, str(error))
            return None


@contextmanager
def _gateway(policies: Sequence[str]) -> Iterator[int]:
    """The port of a gateway as it is deployed, with a model for each policy."""
    port = processes.free_port()
    with tempfile.TemporaryDirectory(prefix="routing-") as folder:
        config = Path(folder, "routing.yaml")
        document = serve_config(port, *(_entry(policy) for policy in policies))
        config.write_text(yaml.safe_dump(document))
        with local_gateway(config, port, policies[0]):
            yield port


def _entry(policy: str) -> dict[str, object]:
    return {
        "name": policy,
        "engine": "sim",
        "replicas": ENGINES,
        "cpus_per_worker": 0.01,
        "routing": {"policy": policy},
        "queue": {"max_wait_s": PATIENCE_S},
        "simulation": dict(SIMULATION),
    }


@contextmanager
def _engines() -> Iterator[list[int]]:
    """The ports of engines that anybody may call."""
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
