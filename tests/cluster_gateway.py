"""A gateway on a Ray cluster of several nodes, all of them on this machine, with logical GPUs."""

import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pytest
import ray
from ray import serve
from ray._private.authentication.authentication_token_setup import (  # noqa: TID251 - no public name
    enable_token_auth_by_default,
    ensure_token_if_auth_enabled,
)
from ray.cluster_utils import Cluster

from deployments.local.processes import free_port
from tests.gateway_process import Document, GatewayProcess

OBJECT_STORE_BYTES = 80 * 1024 * 1024
VARIABLES = {
    "RAY_SERVE_SLOW_STARTUP_WARNING_S": "5",
    "RAY_SERVE_SLOW_STARTUP_WARNING_PERIOD_S": "5",
}
"""When Serve says what a replica waits for; half a minute otherwise."""


@dataclass
class ClusterGateway(GatewayProcess):
    """A cluster whose head node holds Serve's controller and proxy; other nodes are added.

    A context manager: leaving it takes the cluster down.
    """

    head_cpus: int = 2

    def __enter__(self) -> Self:
        """Start the head node and deploy."""
        # As `RAY_AUTH_MODE=token` in the environment of `ray start` does.
        enable_token_auth_by_default()
        ensure_token_if_auth_enabled(create_token_if_missing=True)
        dashboard_port = free_port()
        self._cluster = Cluster()
        with pytest.MonkeyPatch.context() as patch:  # its processes inherit the environment
            for name, value in VARIABLES.items():
                patch.setenv(name, value)
            self._cluster.add_node(
                num_cpus=self.head_cpus,
                num_gpus=0,
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                dashboard_port=dashboard_port,
                object_store_memory=OBJECT_STORE_BYTES,
            )
        self._dashboard = f"http://127.0.0.1:{dashboard_port}"
        ray.init(address=self._cluster.address, namespace="serve", log_to_driver=False)
        try:
            self.deploy(self.document)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Take Serve and the cluster down."""
        self._stop()

    def _stop(self) -> None:
        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()
        gc.collect()  # Ray leaves the pipes of its processes to the garbage collector

    @property
    def environment(self) -> dict[str, str]:
        """What another shell has to export."""
        return os.environ | {"RAY_AUTH_MODE": "token", "RAY_DASHBOARD_ADDRESS": self._dashboard}

    def _complete(self, document: Document) -> Document:
        """The nodes have one address, so that only the head can have a proxy."""
        return {"proxy_location": "HeadOnly", **super()._complete(document)}

    @property
    def ray_address(self) -> str:
        """Ray's address of the cluster."""
        return str(self._cluster.address)

    def add_node(
        self,
        gpus: int,
        type_: str | None = None,
        cpus: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Any:
        """Add a node with logical GPUs of a type, whose processes have this environment."""
        return self._cluster.add_node(
            env_vars=dict(environment or {}),
            num_cpus=cpus,
            num_gpus=gpus,
            resources={f"accelerator_type:{type_}": 1} if type_ else {},
            object_store_memory=OBJECT_STORE_BYTES,
        )

    def kill_node(self, node: Any) -> None:
        """End a node at once, with all that runs on it."""
        self._cluster.remove_node(node, allow_graceful=False)

    def card(self, model: str) -> Document:
        """What `/v1/models` says of a model; nothing while it is unknown."""
        try:
            status, card = self.request("GET", f"/v1/models/{model}")
        except (OSError, ValueError):
            return {}  # Serve's proxy answers before it knows the router, in plain text
        return dict(card) if status == 200 else {}
