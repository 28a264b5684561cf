"""The way in: HAProxy, the ports behind it and the operators' routes, on a running system."""

import http.client
import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped] # it has no types
import psutil
import pytest

from deployments.serve_internals.haproxy_terminations import COUNTS_SUFFIX, read_counts
from tests.gateway_process import ROOT, GatewayProcess, events, model_application, wait_for
from tests.prometheus import samples

pytestmark = pytest.mark.integration

MODEL = model_application(name="slow", engine="sim", simulation={"step_s": 0.05})
BUSY_TOKENS = 60
"""Tokens of an answer that takes three seconds."""


@pytest.fixture(scope="module")
def gateway(shared: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway with a slow model."""
    with shared.models(MODEL) as running:
        yield running


def supervisor_of(gateway: GatewayProcess) -> psutil.Process:
    """The newest `gateway-haproxy`, which Serve has started."""
    found = [
        process
        for process in gateway.session.members
        if any(word.endswith("gateway-haproxy") for word in process.cmdline()[:2])
    ]
    return max(found, key=lambda process: process.create_time())


def admin_of(gateway: GatewayProcess) -> Path:
    """Serve's admin socket of HAProxy."""
    command = supervisor_of(gateway).cmdline()
    return Path(command[command.index("-f") + 1]).with_name("admin.sock")


def router_port(gateway: GatewayProcess) -> int:
    """The port of the only router."""
    (router,) = gateway.replica_processes("gateway", "Router")
    return next(
        connection.laddr.port
        for connection in router.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and 30_000 <= connection.laddr.port < 31_000
    )


def ask(port: int, target: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and parsed body for a GET of `target` as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest("GET", target, skip_host="host" in (headers or {}))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as response:
            return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def is_answered(gateway: GatewayProcess) -> bool:
    """Whether a new connection gets an answer."""
    try:
        return gateway.request("GET", "/healthz")[0] == 200
    except (OSError, http.client.HTTPException, ValueError):
        return False  # a new HAProxy that has no routes yet answers in plain text


def test_a_killed_haproxy_is_replaced_by_its_supervisor(gateway: GatewayProcess) -> None:
    """Serve's own check would take half a minute, and sees a healthy proxy all the time."""
    supervisor = supervisor_of(gateway)
    (killed,) = supervisor.children()

    killed.kill()
    wait_for(lambda: is_answered(gateway))

    (child,) = supervisor.children()
    assert child != killed
    assert supervisor_of(gateway) == supervisor
    assert gateway.chat("resident")[0] == 200


@contextmanager
def unary_in_flight(gateway: GatewayProcess) -> Iterator[list[int]]:
    """A request without streaming, under way on a used connection; its status, once it is there."""
    statuses: list[int] = []
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    body = {"model": "slow", "messages": [{"role": "user", "content": "Hello"}]}

    def send(max_tokens: int) -> None:
        data = json.dumps({**body, "max_tokens": max_tokens})
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", data, headers)
        with connection.getresponse() as response:
            response.read()
            statuses.append(response.status)

    send(1)
    statuses.clear()
    thread = threading.Thread(target=send, args=(BUSY_TOKENS,))
    thread.start()
    yield statuses
    thread.join()
    connection.close()


def test_a_killed_router_s_requests_are_answered_and_its_streams_counted(
    gateway: GatewayProcess,
) -> None:
    """The router itself can say nothing any more; HAProxy's counts reach the metrics."""
    counts = admin_of(gateway).with_name(f"admin.sock{COUNTS_SUFFIX}")
    before = read_counts(counts).get("SD", 0)
    (router,) = gateway.replica_processes("gateway", "Router")
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": "slow", "messages": messages, "max_tokens": 500, "stream": True}

    with (
        unary_in_flight(gateway) as statuses,
        gateway.open("POST", "/v1/chat/completions", body) as response,
    ):
        stream = events(response)
        next(stream)
        router.kill()
        with pytest.raises((AssertionError, http.client.IncompleteRead)):
            list(stream)

    assert statuses == [200]
    assert read_counts(counts)["SD"] == before + 1
    wait_for(lambda: "SD" in published(gateway))


def published(gateway: GatewayProcess) -> set[str]:
    """States that the metric of cut answers has, as Ray's agent exports it."""
    lines = samples(gateway.session, "ray_gateway_haproxy_cut_total")
    return {labels["state"] for labels, value in lines if value > 0}


def test_connections_and_their_limit_are_published(gateway: GatewayProcess) -> None:
    """One router of the node reads them from HAProxy."""
    with gateway.stream("slow", "Hello", 3):
        wait_for(lambda: bool(samples(gateway.session, "ray_gateway_haproxy_connections")))
    limits = [v for _, v in samples(gateway.session, "ray_gateway_haproxy_connection_limit")]

    assert limits  # also of the router that was killed just before, for a while
    assert min(limits) >= 64


@pytest.mark.parametrize("target", ["/v1/models", "/healthz", "/gateway/config", "/docs"])
def test_a_router_s_own_port_answers_only_haproxy(gateway: GatewayProcess, target: str) -> None:
    """Others could invent the client's address there, or pass the limits by."""
    forged = {"x-gateway-proxy-key": "0" * 64, "x-forwarded-for": "127.0.0.1"}

    for headers in ({}, forged):
        status, body = ask(router_port(gateway), target, headers)
        assert (status, body["error"]["code"]) == (403, "not_through_proxy")


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/gateway/config", {}, 200),
        ("/gateway/config", {"host": "localhost"}, 200),
        ("/gateway/config", {"host": "evil.example"}, 404),
        ("/gateway/config", {"x-forwarded-for": "127.0.0.1"}, 404),
        ("/gateway/config", {"X_Forwarded_For": "203.0.113.9"}, 200),  # which nobody reads
        ("/gateway/config", {"forwarded": "for=203.0.113.9"}, 404),
        ("/gateway/config", {"x-real-ip": "127.0.0.1"}, 404),
        ("/gateway/config", {"via": "1.1 nginx"}, 404),
        ("/gateway/config", {"x-forwarded-proto": "https"}, 404),
        ("/gateway/config", {"origin": "https://evil.example"}, 404),
        ("/%67ateway/config", {}, 404),
        ("/gateway%2fconfig", {}, 404),
        ("//gateway/config", {}, 404),
        ("/./gateway/config", {}, 404),
        ("/v1/../gateway/config", {}, 404),
        ("/gateway/config/", {}, 404),
        ("/gateway/config;a", {}, 404),
        ("/Gateway/config", {}, 404),
    ],
)
def test_operators_routes_are_open_only_to_this_machine(
    gateway: GatewayProcess, target: str, headers: dict[str, str], status: int
) -> None:
    """Without a key, not through another proxy, by another name or in another spelling."""
    assert ask(gateway.port, target, headers)[0] == status


def test_files_are_closed_to_other_users(gateway: GatewayProcess) -> None:
    """What has been written for this gateway, and HAProxy's sockets and configuration."""
    directory = admin_of(gateway).parent
    session = ROOT / ".run" / f"{gateway.process.pid}.json"
    private = [directory / "haproxy.cfg", session, session.with_suffix(".yaml")]
    sockets = [path for path in directory.iterdir() if stat.S_ISSOCK(path.stat().st_mode)]

    assert len(sockets) >= 3
    assert [path for path in (*private, *sockets) if path.stat().st_mode & 0o077] == []
    assert directory.stat().st_mode & 0o077 == 0


def test_only_guarded_ports_listen_beyond_loopback(gateway: GatewayProcess) -> None:
    """Serve's internal gRPC, which asks for the cluster's token, cannot be bound to loopback."""
    exposed = {
        process.pid: process.name()
        for process in gateway.session.members
        for connection in connections_of(process)
        if connection.status == psutil.CONN_LISTEN and not is_loopback(connection.laddr.ip)
    }

    assert {name.partition(":")[0] for name in exposed.values()} <= {"ray"}
    assert all("ServeRepli" in name for name in exposed.values()), exposed


def test_a_replica_unpickles_nothing_without_the_clusters_token(gateway: GatewayProcess) -> None:
    """Its gRPC port is open to the network; what it is sent there could be any code."""
    (router,) = gateway.replica_processes("gateway", "Router")
    port = next(
        connection.laddr.port
        for connection in connections_of(router)
        if connection.status == psutil.CONN_LISTEN and not is_loopback(connection.laddr.ip)
    )
    for metadata in ((), (("authorization", "Bearer wrong"),)):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refusal:
                call(b"", metadata=metadata, timeout=30)
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


def connections_of(process: psutil.Process) -> list[Any]:
    """Connections of a process that may have just gone."""
    try:
        return list(process.net_connections("tcp"))
    except psutil.Error:
        return []


def is_loopback(address: str) -> bool:
    """Whether an address that is listened on is this machine's own."""
    return address.startswith("127.") or address in {"::1", "::ffff:127.0.0.1"}
