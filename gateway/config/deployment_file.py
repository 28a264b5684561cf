"""What a valid deployment file says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config.accounts import AccountsConfig
from gateway.config.gateway import GatewayConfig
from gateway.config.model import ModelEntry
from gateway.config.serve_values import DEFAULT_PORT, most_replicas
from gateway.config.state import StateConfig

ROUTER_CPUS = 0.2
"""Logical CPUs of a router, unless the file says otherwise."""
SERVE_CPUS = 1.0
"""What Serve makes of null."""


@dataclass(frozen=True, slots=True)
class ModelApplication:
    """Serve application of a model."""

    name: str
    entry: ModelEntry


@dataclass(frozen=True, slots=True)
class RouterScale:
    """How many routers there are, and the logical CPUs of each."""

    min_replicas: int = 1
    max_replicas: int = 1
    cpus: float = ROUTER_CPUS

    @classmethod
    def of(cls, router: Mapping[str, Any]) -> "RouterScale":
        """Scale of the Router deployment as a valid file has it."""
        options = router.get("ray_actor_options") or {}
        cpus = options.get("num_cpus", ROUTER_CPUS)
        cpus = SERVE_CPUS if cpus is None else cpus
        scaling = router.get("autoscaling_config") or {}
        if scaling or router.get("num_replicas") == "auto":
            return cls(scaling.get("min_replicas", 1), most_replicas(router), cpus)
        count = router.get("num_replicas") or 1
        return cls(count, count, cpus)


@dataclass(frozen=True, slots=True)
class DeploymentFile:
    """Validated content of a deployment file."""

    models: tuple[ModelApplication, ...]
    gateway: GatewayConfig
    routers: RouterScale = RouterScale()
    accounts: AccountsConfig | None = None
    """The database of projects, keys and usage, if there is one."""
    state: StateConfig | None = None
    """Storage of projects' files, batches and responses, if there is one."""
    port: int = DEFAULT_PORT
    """Port of the gateway, `http_options.port`."""
    warnings: tuple[str, ...] = ()
    """What is not wrong in itself, but may fail or do harm: file, line, path, and what it is."""
