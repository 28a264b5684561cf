"""`gateway doctor` on a cluster of several nodes, one of which has planted faults."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_gateway import ClusterGateway

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    # Ray leaves the sockets and pipes of the processes it starts to the garbage collector.
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <(socket|_io)\.:pytest.PytestUnraisableExceptionWarning"
    ),
]

FILE = """
http_options: {{host: 127.0.0.1}}
applications:
  - {{name: gateway, import_path: deployments.app:gateway, route_prefix: /}}
  - name: kept
    import_path: deployments.app:model
    route_prefix: null
    args: {{name: kept, engine: vllm, source: org/kept, accelerator: H100}}
  - name: lost
    import_path: deployments.app:model
    route_prefix: null
    args: {{name: lost, engine: vllm, source: {folder}/lost, accelerator: L40S}}
"""
OTHER_RAY = "Metadata-Version: 2.1\nName: ray\nVersion: 9.9.9\n"


def examined(gateway: ClusterGateway, file: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit status of the command, and its findings that are not ok."""
    ended = subprocess.run(
        [
            *(sys.executable, "-c", "from gateway.cli import app; app()", "doctor", str(file)),
            *("--address", gateway.ray_address, "--json", "--quick"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, **gateway.environment},
        check=False,
    )
    assert ended.stdout, ended.stderr
    findings = json.loads(ended.stdout)["findings"]
    return ended.returncode, [each for each in findings if each["level"] != "ok"]


def test_planted_faults_are_found_where_they_are(shared: ClusterGateway, tmp_path: Path) -> None:
    """Another Ray, an interface that is not there, weights on no node, and a cache on some."""
    metadata = tmp_path / "other" / "ray-9.9.9.dist-info"
    snapshot = tmp_path / "hf" / "hub" / "models--org--kept" / "snapshots" / "1"
    for folder in (metadata, snapshot):
        folder.mkdir(parents=True)
    (metadata / "METADATA").write_text(OTHER_RAY)
    (snapshot / "config.json").write_text("{}")
    file = tmp_path / "serve.yaml"
    file.write_text(FILE.format(folder=tmp_path))
    python_path = os.pathsep.join([str(metadata.parent), os.environ.get("PYTHONPATH", "")])
    faulty = shared.add_node(
        1,
        "L40S",
        environment={"GLOO_SOCKET_IFNAME": "none0", "PYTHONPATH": python_path},
    )
    try:
        status, found = examined(shared, file)
    finally:
        shared.kill_node(faulty)

    failures = [(each["check"], each["message"]) for each in found if each["level"] == "failure"]
    assert status == 1
    for check, words in (
        ("ray", "versions differ: 2.60"),
        ("ray", "9.9.9 is not supported"),
        ("interfaces", "GLOO_SOCKET_IFNAME=none0"),
        ("weights", f"lost: source {tmp_path}/lost is not there"),
    ):
        assert any(each == check and words in message for each, message in failures), words
    assert not {"ports", "nodes"} & {check for check, _ in failures}
    assert all(each["remedy"] for each in found)
    cache = [each for each in found if "org/kept is not in the cache" in each["message"]]
    assert [each["level"] for each in cache] == ["warning"]
