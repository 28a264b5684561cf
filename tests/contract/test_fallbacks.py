"""Fallbacks for internals of Ray and uvicorn that another version does not have."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from ray import serve
from ray.serve.schema import ReplicaState

from deployments.serve_internals import (
    cluster_state,
    http_options,
    local_cluster,
    router_protocol,
    status,
    uvicorn_server,
)
from deployments.serve_internals.config_store import ClusterConfigStore
from deployments.serve_internals.fallback import warn_once
from gateway.http.app import GatewayApp

NO_GATEWAY = cast("GatewayApp", None)
ENGINE = SimpleNamespace(replica_states={ReplicaState.STARTING: 2, ReplicaState.RUNNING: 1})
APPLICATION = SimpleNamespace(deployments={"Engine": ENGINE})


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The captured log, with no earlier warnings."""
    warn_once.cache_clear()
    caplog.set_level(logging.WARNING)
    yield caplog
    warn_once.cache_clear()


@pytest.fixture
def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve without its private client, with a public status of one application."""
    monkeypatch.delattr("ray.serve.context._get_global_client")
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={"m": APPLICATION}))


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make a module impossible to import."""
    monkeypatch.setitem(sys.modules, module, cast("ModuleType", None))


def test_a_warning_is_logged_once(warnings: pytest.LogCaptureFixture) -> None:
    """It names what is missing, and the consequence; a status is read every two seconds."""
    for _ in range(3):
        warn_once("Ray's thing", "it is slower", "AttributeError('thing')")

    (record,) = warnings.records
    assert "Ray's thing" in record.getMessage()
    assert "it is slower" in record.getMessage()


@pytest.mark.usefixtures("no_client")
def test_without_serve_s_client_the_public_status_is_read(
    warnings: pytest.LogCaptureFixture,
) -> None:
    """It is slower, and has the same content."""
    assert status.serve_status().applications == {"m": APPLICATION}
    assert "serve.status() is used" in warnings.text


@pytest.mark.usefixtures("no_client")
@pytest.mark.parametrize(
    ("app", "deployment", "count"), [("m", "Engine", 2), ("gone", "Engine", 0)]
)
def test_without_serve_s_client_every_starting_replica_is_unplaced(
    app: str, deployment: str, count: int
) -> None:
    """Serve's public status does not say which of them has a node."""
    assert status.unplaced_replicas(app, deployment) == count


def test_details_of_another_shape_count_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is treated like a missing attribute."""
    client = SimpleNamespace(get_serve_details=lambda: {"apps": {}})
    monkeypatch.setattr("ray.serve.context._get_global_client", lambda: client)
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={"m": APPLICATION}))

    assert status.serve_status().applications == {"m": APPLICATION}


@pytest.mark.usefixtures("no_client")
def test_without_serve_s_client_the_address_counts_as_reachable(
    warnings: pytest.LogCaptureFixture,
) -> None:
    """Operators' routes then need a token."""
    assert not http_options.listens_on_loopback()
    assert "reachable from outside" in warnings.text


def test_without_ray_s_cluster_status_the_cluster_is_unknown(
    monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    """No reason is given for a wait, and no old engine stops."""
    without(monkeypatch, "ray.autoscaler.v2.sdk")

    assert cluster_state.read_cluster() is None
    assert "Ray's cluster status" in warnings.text


async def test_without_ray_s_store_no_config_is_kept(
    monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    """The router still starts, and adopts its config."""
    context = SimpleNamespace(app_name="gateway")
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    monkeypatch.delattr("ray.experimental.internal_kv._internal_kv_put")
    monkeypatch.delattr("ray.experimental.internal_kv._internal_kv_get")
    store = ClusterConfigStore()

    await store.keep(b"{}")

    assert await store.recall() is None
    assert "key-value store" in warnings.text


def test_ray_chooses_the_metrics_port_where_it_takes_none(
    warnings: pytest.LogCaptureFixture,
) -> None:
    """A cluster starts without the private parameter; other errors are raised."""
    calls: list[dict[str, Any]] = []

    def init(**options: object) -> object:
        calls.append(options)
        if "_metrics_export_port" in options:
            raise RuntimeError("Unknown keyword argument(s): _metrics_export_port")
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    def fail(**_: object) -> object:
        raise RuntimeError("no memory")

    assert local_cluster.start_cluster(9000, init) == "http://127.0.0.1:8265"
    assert [call.get("_metrics_export_port") for call in calls] == [9000, None]
    assert "Ray chooses the port" in warnings.text
    with pytest.raises(RuntimeError, match="no memory"):
        local_cluster.start_cluster(9000, fail)


@pytest.mark.parametrize("gone", ["uvicorn.config", "uvicorn.protocols.http.httptools_impl"])
def test_without_uvicorn_s_protocol_a_router_keeps_the_default(
    monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture, gone: str
) -> None:
    """A module that has moved is a warning, and the router starts."""
    without(monkeypatch, gone)

    router_protocol.install_router_protocol(NO_GATEWAY)

    assert "uvicorn's HTTP protocol" in warnings.text


def test_a_protocol_without_our_attributes_still_connects(
    monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    """If the protocol has no `app` to replace, uvicorn serves the connection."""

    class Protocol:
        def __init__(self) -> None:
            self.transport: object = None

        def connection_made(self, transport: object) -> None:
            self.transport = transport

    monkeypatch.setattr("uvicorn.protocols.http.httptools_impl.HttpToolsProtocol", Protocol)
    protocol = router_protocol._router_protocol(NO_GATEWAY)()
    protocol.loop = SimpleNamespace()
    protocol.connection_made(SimpleNamespace(name="socket"))

    assert protocol.transport.name == "socket"
    assert "uvicorn's protocol" in warnings.text


def test_without_uvicorn_s_protocol_an_engine_serves_by_the_default(
    monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    """Only the resets of the simulator are missing."""
    without(monkeypatch, "uvicorn.protocols.http.httptools_impl")

    assert uvicorn_server.http_protocol() == "auto"
    assert "cannot reset connections" in warnings.text


def test_a_server_without_its_lists_still_closes(warnings: pytest.LogCaptureFixture) -> None:
    """It stops listening; connections end when they are idle."""
    closed: list[bool] = []
    server = object.__new__(uvicorn_server.EmbeddedServer)
    server.servers = [SimpleNamespace(close=lambda: closed.append(True))]  # type: ignore[list-item]

    server.close()

    assert closed == [True]
    assert "list of connections" in warnings.text


def test_a_server_whose_connections_have_no_transport_still_closes(
    warnings: pytest.LogCaptureFixture,
) -> None:
    """uvicorn's protocols are as undocumented as its list of them."""
    server = object.__new__(uvicorn_server.EmbeddedServer)
    server.server_state = cast("Any", SimpleNamespace(connections=[object()]))

    server.close()

    assert "list of connections" in warnings.text
