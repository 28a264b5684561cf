"""Connections that a deployment needs."""

from pathlib import Path

import pytest

from gateway.cluster.connections import (
    admitted_requests,
    connections_warning,
    connections_with,
    files_for,
)
from gateway.config.deployment_file import DeploymentFile
from gateway.config.loader import load_config

FILE = """\
http_options: {host: 127.0.0.1}
applications:
  - name: gateway
    import_path: deployments.app:gateway
    deployments: [{name: Router, num_replicas: 3}]
  - name: large
    import_path: deployments.app:model
    route_prefix: null
    args:
      name: large
      engine: vllm
      source: org/large
      autoscaling: {max: 4}
      queue: {max_requests: 100}
      engine_args: {max_num_seqs: 50}
  - name: small
    import_path: deployments.app:model
    route_prefix: null
    args: {name: small, engine: sim, replicas: 2, simulation: {max_sequences: 8}}
"""
ADMITTED = (100 * 3 + 50 * 4) + (1000 * 3 + 8 * 2)


@pytest.fixture
def deployment(tmp_path: Path) -> DeploymentFile:
    """A deployment with three routers and two models."""
    path = tmp_path / "config.yaml"
    path.write_text(FILE)
    return load_config(path)


def test_queues_of_all_routers_and_slots_of_all_replicas_count(deployment: DeploymentFile) -> None:
    """The replicas are as many as there may be."""
    assert admitted_requests(deployment) == ADMITTED


def test_a_vllm_engine_has_the_usual_slots_unless_its_entry_says(tmp_path: Path) -> None:
    """They are known only where it runs."""
    path = tmp_path / "config.yaml"
    path.write_text(FILE.replace("      engine_args: {max_num_seqs: 50}\n", ""))
    assert admitted_requests(load_config(path)) == ADMITTED + 4 * (256 - 50)


def test_too_few_files_are_warned_of(deployment: DeploymentFile) -> None:
    """The warning has both numbers, and what to do; enough files get none."""
    enough = files_for(ADMITTED)
    assert connections_with(enough) == ADMITTED
    assert connections_warning(deployment, enough, {}) is None

    warning = connections_warning(deployment, enough - 2, {})

    assert warning
    assert f"hold up to {ADMITTED} requests" in warning
    assert f"accept {ADMITTED - 1} connections" in warning
    assert f"{enough} open files" in warning
    assert "ulimit -Hn" in warning
    assert "\n" not in warning


def test_the_default_maximum_is_warned_of(tmp_path: Path) -> None:
    """Files are not enough beyond it: it has to be raised, too."""
    path = tmp_path / "config.yaml"
    path.write_text(FILE.replace("max_requests: 100", "max_requests: 100000"))
    deployment = load_config(path)
    admitted = admitted_requests(deployment)

    warning = connections_warning(deployment, 1 << 20, {})

    assert warning
    assert f"RAY_SERVE_HAPROXY_MAXCONN={admitted}" in warning
    environ = {"RAY_SERVE_HAPROXY_MAXCONN": str(admitted)}
    assert connections_warning(deployment, 1 << 20, environ) is None
