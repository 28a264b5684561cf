"""A gateway on a Ray cluster of several nodes, to which each module adds nodes of its own."""

from collections.abc import Iterator

import pytest

from tests.cluster_gateway import ClusterGateway
from tests.gateway_process import document, gateway_application, model_application

SMALL = model_application(
    name="small", engine="sim", cpus_per_worker=0.05, drain_timeout_s=30, replicas=1
)
"""A model that needs no GPU."""


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterGateway]:
    """A head node and two nodes of four H100, as far as Ray's bookkeeping goes."""
    config = document(gateway_application(), SMALL)
    with ClusterGateway(config, tmp_path_factory.mktemp("many_nodes")) as running:
        for _ in range(2):
            running.add_node(4, "H100")
        yield running
