"""Whether all models of a file have room at once."""

from pathlib import Path

import pytest

from gateway.cluster.fit import first_fit
from gateway.cluster.shortage import Node
from gateway.config.loader import load_config

MODEL = """
  - name: {name}
    import_path: deployments.app:model
    route_prefix: null
    args: {{name: {name}, engine: sim, {fields}}}
"""
HEAD = """
http_options: {host: 127.0.0.1}
applications:
  - name: gateway
    import_path: deployments.app:gateway
    route_prefix: /
"""
EIGHT = {"CPU": 16.0, "GPU": 8.0, "accelerator_type:H100": 1.0}


def waiting(tmp_path: Path, nodes: list[dict[str, float]], **models: str) -> dict[str, int]:
    """How many replicas of each model have room, of those that have not enough."""
    file = tmp_path / "serve.yaml"
    entries = [MODEL.format(name=name, fields=fields) for name, fields in models.items()]
    file.write_text(HEAD + "".join(entries))
    found = [Node(f"n{i}", total, total) for i, total in enumerate(nodes)]
    return {each.model: each.placed for each in first_fit(load_config(file), found, at_most=False)}


@pytest.mark.parametrize(
    ("replicas", "expected"), [(2, {}), (3, {"m": 2})], ids=["fits", "does not"]
)
def test_replicas_fill_nodes(tmp_path: Path, replicas: int, expected: dict[str, int]) -> None:
    """Two of eight GPUs fill two nodes."""
    fields = f"accelerator: H100, parallelism: {{tensor: 8}}, replicas: {replicas}"

    assert waiting(tmp_path, [EIGHT, EIGHT], m=fields) == expected


def test_the_largest_replicas_are_placed_first(tmp_path: Path) -> None:
    """Otherwise small ones would take the only node that the large one fits on."""
    small = "accelerator: H100, replicas: 1"
    large = "accelerator: H100, parallelism: {tensor: 8}, replicas: 1"
    other = {**EIGHT, "GPU": 1.0}

    assert waiting(tmp_path, [EIGHT, other], small=small, large=large) == {}


def test_a_replica_over_several_nodes_takes_all_its_parts_or_none(tmp_path: Path) -> None:
    """What it could not keep is there for others."""
    wide = (
        "accelerator: {type: H100, per_node: 8}, parallelism: {tensor: 8, pipeline: 3}, replicas: 1"
    )
    small = "accelerator: H100, replicas: 16, cpus_per_worker: 0.5"

    assert waiting(tmp_path, [EIGHT, EIGHT], wide=wide, small=small) == {"wide": 0}


def test_routers_need_room_too(tmp_path: Path) -> None:
    """They come first: without them, nothing can be reached."""
    small = "accelerator: cpu, cpus_per_worker: 0.1"

    assert waiting(tmp_path, [{"CPU": 0.15}], small=small) == {"routers": 0}
