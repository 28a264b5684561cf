"""HAProxy under its supervisor, started, reloaded and stopped by Serve's own code."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from ray.serve._private import constants, haproxy
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from deployments.local.processes import free_port
from deployments.serve_internals.haproxy_limits import ConnectionLimits
from deployments.serve_internals.haproxy_report import HAProxyReport
from deployments.serve_internals.haproxy_terminations import COUNTS_SUFFIX, read_counts, state_of
from gateway.environment import HAPROXY_SOCKET_DEFAULT
from gateway.metrics import HAPROXY_CONNECTION_LIMIT, HAPROXY_CONNECTIONS, HAPROXY_CUT
from gateway.proxy_key import proxy_key
from tests.unit.conftest import PATIENCE_S, FakeEngine, StartEngine, Visit, answer
from tests.unit.recorder import KeptRecorder

SCRIPT = str(Path(sys.executable).with_name("gateway-haproxy"))
TOKEN = "a cluster's token"  # noqa: S105 - of a test


class FrontDoor:
    """Serve's own object for a node's HAProxy, in front of fake routers."""

    def __init__(self, directory: Path, *routers: FakeEngine, fallback: FakeEngine | None) -> None:
        self.port = free_port()
        self.directory = directory
        self.admin = directory / "admin.sock"
        self.stats_port, self.metrics_port = free_port(), free_port()
        settings = HAProxyConfig(
            socket_path=str(self.admin),
            server_state_base=str(directory),
            server_state_file=str(directory / "server-state"),
            stats_port=self.stats_port,
            metrics_port=self.metrics_port,
            metrics_enabled=False,
            timeout_server_s=60,
            retry_on="conn-failure empty-response",
            observe_error_limit=1,
            http_options=HTTPOptions(host="127.0.0.1", port=self.port),
            has_received_routes=True,
            nbthread=1,
        )
        backend = BackendConfig(
            name="gateway",
            path_prefix="/",
            app_name="gateway",
            servers=[_server(f"router{i}", router) for i, router in enumerate(routers)],
            fallback_server=None if fallback is None else _server("fallback", fallback),
        )
        self.api = HAProxyApi(
            settings, {"gateway": backend}, config_file_path=str(directory / "haproxy.cfg")
        )

    @property
    def supervisor(self) -> psutil.Process:
        """The process that Serve knows."""
        assert self.api._proc is not None
        return psutil.Process(self.api._proc.pid)

    @property
    def haproxy(self) -> psutil.Process:
        """HAProxy itself."""
        (child,) = self.supervisor.children()
        return child

    @property
    def counts(self) -> dict[str, int]:
        """What it has counted as cut, by termination state."""
        return read_counts(Path(f"{self.admin}{COUNTS_SUFFIX}"))

    def client(self) -> httpx.AsyncClient:
        """A client with connections of its own."""
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S)

    async def get(self, **headers: str) -> httpx.Response:
        """One request on a connection of its own."""
        async with self.client() as client:
            return await client.get("/v1/models", headers=headers)

    async def wait_until_up(self) -> None:
        """Return once requests reach a router."""
        await until(self._is_up)

    async def _is_up(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (await self.get()).status_code == 200
        return False


def _server(name: str, router: FakeEngine) -> ServerConfig:
    host, port = router.address
    return ServerConfig(name=name, host=host, port=port)


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.02)


async def route(tracked: Visit) -> None:
    """Answer as a router does: a stream that does not end, if one is asked for."""
    if b"GET /stream " in tracked.request:
        await tracked.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await tracked.until_gone()
    elif b"x-trusted: 1" in tracked.request:
        await tracked.send(
            b"HTTP/1.1 200 OK\r\nx-gateway-trusted-proxy: 1\r\ncontent-length: 2\r\n\r\nok"
        )
    else:
        await tracked.send(answer(b"routed"))


@pytest.fixture
async def router(start_engine: StartEngine) -> FakeEngine:
    """A fake router behind HAProxy."""
    return await start_engine(route)


@pytest.fixture
def limits() -> dict[str, str]:
    """Variables that the tests of limits set."""
    return {}


@pytest.fixture
async def door(
    router: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, str],
) -> AsyncIterator[FrontDoor]:
    """HAProxy in front of the router, started by Serve."""
    monkeypatch.setattr(haproxy, "RAY_SERVE_HAPROXY_BINARY_PATH", SCRIPT)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    door = FrontDoor(tmp_path, router, fallback=None)
    await door.api.start()
    await door.wait_until_up()
    yield door
    await door.api.stop()


async def test_a_killed_haproxy_is_back_at_once_and_serve_does_not_notice(door: FrontDoor) -> None:
    """The process that Serve has started lives on, and answers for the new one."""
    supervisor, killed = door.supervisor, door.haproxy

    killed.kill()
    await until(lambda: door.supervisor.children() not in ([], [killed]))
    await door.wait_until_up()

    assert door.supervisor == supervisor
    assert await door.api.is_running()
    assert await door.api._get_running_pid() == supervisor.pid
    assert door.counts["restart"] == 1


async def test_a_restarted_haproxy_is_reloaded_like_the_first_one(door: FrontDoor) -> None:
    """After a crash and after reloads there is one HAProxy, and streams of old ones go on."""
    await door.api.reload()
    door.haproxy.kill()
    await door.wait_until_up()

    async with door.client() as client, client.stream("GET", "/stream") as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == b"first"
        before = door.supervisor
        await door.api.reload()
        door.haproxy.kill()
        await door.wait_until_up()
        assert door.supervisor != before
        assert before.is_running()
        assert door.api.has_alive_old_procs()
        assert not response.is_closed
    await until(lambda: not door.api.has_alive_old_procs())

    assert door.api.count_haproxy_processes() == 2  # the supervisor and its HAProxy


async def test_the_supervisor_is_not_found_by_the_name_of_haproxy(door: FrontDoor) -> None:
    """An operator who kills all processes of that name must not kill what starts it again."""
    assert door.haproxy.name() == "haproxy"
    assert door.supervisor.name() == "gw-supervisor"


async def test_an_old_haproxy_that_is_killed_does_not_come_back(door: FrontDoor) -> None:
    """It has been told to finish: its supervisor ends with it."""
    async with door.client() as client, client.stream("GET", "/stream") as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == b"first"
        old, supervisor = door.haproxy, door.supervisor
        await door.api.reload()
        old.kill()
        await until(lambda: not door.api.has_alive_old_procs())

    assert not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE
    assert (await door.get()).status_code == 200


async def test_serves_stop_leaves_nothing_running(door: FrontDoor) -> None:
    """Serve kills the process that it has started; the kernel kills HAProxy with it."""
    haproxy_process = door.haproxy

    await door.api.stop()

    await until(lambda: not haproxy_process.is_running())


async def test_haproxy_ends_after_serves_process_has_died(
    router: FakeEngine, tmp_path: Path
) -> None:
    """Its streams may finish; the port is free for the next one."""
    door = FrontDoor(tmp_path, router, fallback=None)
    door.api._generate_config_file_internal()
    command = [SCRIPT, "-db", "-f", str(tmp_path / "haproxy.cfg"), "-dR"]
    code = (
        "import subprocess, sys, time; p = subprocess.Popen(sys.argv[1:]);"
        " print(p.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as serve:
        assert serve.stdout is not None
        supervisor = psutil.Process(int(serve.stdout.readline()))
        await door.wait_until_up()
        (child,) = supervisor.children()
        async with door.client() as client, client.stream("GET", "/stream") as response:
            parts = response.aiter_bytes()
            assert await anext(parts) == b"first"
            serve.kill()
            await until(lambda: _is_free(door.port))
            assert child.is_running()
        await until(lambda: not supervisor.is_running() and not child.is_running())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_a_configuration_that_haproxy_rejects_is_not_tried_again(tmp_path: Path) -> None:
    """Serve sees that the start has failed, and HAProxy's own words."""
    config = tmp_path / "haproxy.cfg"
    admin = tmp_path / "admin.sock"
    config.write_text(
        f"global\n    stats socket {admin} mode 666 level admin expose-fd listeners\n"
        "defaults\n    mode http\nfrontend prometheus\nfrontend http_frontend\n    nonsense\n"
    )

    process = await asyncio.create_subprocess_exec(
        *(SCRIPT, "-db", "-f", str(config)), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert process.returncode == 1
    assert said.count(b"unknown keyword 'nonsense'") == 1


async def test_a_haproxy_that_is_killed_again_and_again_is_given_up(door: FrontDoor) -> None:
    """Serve's own check then finds it gone, and starts another."""
    supervisor = door.supervisor

    async def has_ended() -> bool:
        with contextlib.suppress(psutil.Error):
            for child in supervisor.children():
                child.kill()
        return door.api._proc is None or door.api._proc.returncode is not None

    await until(has_ended)

    assert not await door.api.is_running()


async def test_the_admin_sockets_and_files_are_closed_to_others(door: FrontDoor) -> None:
    """Whoever writes to an admin socket can send all requests elsewhere."""
    await door.api.reload()
    door.haproxy.kill()
    await door.wait_until_up()

    open_ones = [
        path.name
        for path in door.directory.iterdir()
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and ".sock" in path.name
        if not path.name.endswith(".log") or stat.S_ISSOCK(path.stat().st_mode)
    ]
    assert open_ones == []
    assert stat.S_IMODE(door.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((door.directory / "haproxy.cfg").stat().st_mode) == 0o600


async def test_statistics_are_on_loopback_and_the_gateway_where_the_config_says(
    door: FrontDoor,
) -> None:
    """HAProxy listens on no other interface."""
    listening = {
        connection.laddr
        for connection in door.haproxy.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }

    assert {address for address, _ in listening} == {"127.0.0.1"}
    assert {port for _, port in listening} == {door.port, door.stats_port, door.metrics_port}


async def test_routers_get_the_clusters_key_which_stands_nowhere(
    door: FrontDoor, router: FakeEngine
) -> None:
    """Not in files or command lines; a client cannot send it."""
    key = proxy_key({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN})

    await door.get(**{"x-gateway-proxy-key": "forged"})
    request = router.requests[-1].lower()

    assert request.count(b"x-gateway-proxy-key") == 1
    assert f"\r\nx-gateway-proxy-key: {key}\r\n".encode() in request
    assert key not in (door.directory / "haproxy.cfg").read_text()
    assert key not in " ".join([*door.haproxy.cmdline(), *door.supervisor.cmdline()])


class IdleConnections:
    """Idle connections to HAProxy, from addresses of the machine's loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []

    def open(self, count: int, address: str = "127.0.0.1") -> None:
        """Open more connections that send nothing."""
        for _ in range(count):
            client = socket.socket()
            client.bind((address, 0))
            client.connect(("127.0.0.1", self._port))
            self._sockets.append(client)

    def close(self) -> None:
        """Close all of them."""
        for client in self._sockets:
            client.close()


@pytest.fixture
def idle(door: FrontDoor) -> Iterator[IdleConnections]:
    """Idle connections, closed in the end."""
    idle = IdleConnections(door.port)
    yield idle
    idle.close()


async def _get_from(address: str, port: int, **headers: str) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(transport=transport, timeout=PATIENCE_S) as client:
        return await client.get(f"http://127.0.0.1:{port}/v1/models", headers=headers)


@pytest.mark.parametrize(
    "limits", [{"RAY_SERVE_HAPROXY_MAXCONN": "200", "GATEWAY_CONNECTIONS_PER_ADDRESS": "20"}]
)
async def test_an_address_with_too_many_connections_is_told_so(
    door: FrontDoor, idle: IdleConnections
) -> None:
    """More get 429 with the reason, many more are closed; other addresses notice nothing."""
    idle.open(20, "127.0.0.9")

    told = await _get_from("127.0.0.9", door.port)
    other = await _get_from("127.0.0.8", door.port)
    idle.open(60, "127.0.0.9")
    with pytest.raises(httpx.TransportError):
        await _get_from("127.0.0.9", door.port)
    still = await _get_from("127.0.0.8", door.port)

    assert (told.status_code, told.json()["error"]["code"]) == (429, "too_many_connections")
    assert told.headers["retry-after"]
    assert "20 open connections" in told.json()["error"]["message"]
    assert (other.status_code, still.status_code) == (200, 200)


@pytest.mark.parametrize(
    "limits", [{"RAY_SERVE_HAPROXY_MAXCONN": "200", "GATEWAY_CONNECTIONS_PER_ADDRESS": "20"}]
)
async def test_a_trusted_proxy_may_have_any_number_of_connections(
    door: FrontDoor, idle: IdleConnections
) -> None:
    """Routers say in their answers that an address is one; clients do not see it."""
    first = await _get_from("127.0.0.9", door.port, **{"x-trusted": "1"})
    idle.open(100, "127.0.0.9")

    response = await _get_from("127.0.0.9", door.port)

    assert "x-gateway-trusted-proxy" not in first.headers
    assert response.status_code == 200


@pytest.mark.parametrize(
    "limits", [{"RAY_SERVE_HAPROXY_MAXCONN": "160", "GATEWAY_CONNECTIONS_PER_ADDRESS": "0"}]
)
async def test_the_last_connections_are_refused_with_a_reason(
    door: FrontDoor, idle: IdleConnections
) -> None:
    """HAProxy itself would let them wait until another connection ends."""
    idle.open(155, "127.0.0.9")

    response = await _get_from("127.0.0.8", door.port)

    assert (response.status_code, response.json()["error"]["code"]) == (503, "too_many_connections")
    assert response.headers["retry-after"]


@pytest.mark.parametrize(
    ("environ", "files", "total", "per_address"),
    [
        ({}, 20_000, 9_872, 4_936),
        ({}, 2**20, 65_536, 32_768),
        ({}, 100, 64, 32),
        ({"RAY_SERVE_HAPROXY_MAXCONN": "1000"}, 20_000, 1000, 500),
        ({"GATEWAY_CONNECTIONS_PER_ADDRESS": "0"}, 20_000, 9_872, 0),
        ({"GATEWAY_CONNECTIONS_PER_ADDRESS": "7"}, 20_000, 9_872, 7),
    ],
)
def test_connections_are_limited_by_files(
    environ: dict[str, str], files: int, total: int, per_address: int
) -> None:
    """As many as there can be, unless the operator says less."""
    limits = ConnectionLimits.read(environ, files)

    assert (limits.total, limits.per_address) == (total, per_address)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RAY_SERVE_HAPROXY_MAXCONN": "100000"}, "needs 200256 open files, and 20000 are allowed"),
        ({"RAY_SERVE_HAPROXY_MAXCONN": "many"}, "is not a whole number"),
        ({"GATEWAY_CONNECTIONS_PER_ADDRESS": "-1"}, "is not a whole number"),
    ],
)
def test_a_limit_that_cannot_be_kept_stops_the_start(environ: dict[str, str], message: str) -> None:
    """HAProxy would start with fewer, and say so where nobody looks."""
    with pytest.raises(SystemExit, match=message):
        ConnectionLimits.read(environ, 20_000)


async def test_the_default_limit_is_what_haproxy_can_open_files_for(door: FrontDoor) -> None:
    """It has started with it, and its exporter shows use and limit."""
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"http://127.0.0.1:{door.metrics_port}/metrics")).text

    assert f"\nhaproxy_process_max_connections {ConnectionLimits.read({}).total}\n" in page
    assert "\nhaproxy_process_current_connections " in page


async def test_a_request_in_flight_survives_its_only_router(
    start_engine: StartEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a connection that was used before, too: it goes to Serve's own proxy."""
    monkeypatch.setattr(haproxy, "RAY_SERVE_HAPROXY_BINARY_PATH", SCRIPT)
    died = asyncio.Event()

    async def die(tracked: Visit) -> None:
        if b"POST " in tracked.request:
            died.set()
            await tracked.until_gone()
        else:
            await tracked.send(answer(b"routed"))

    router = await start_engine(die)
    door = FrontDoor(tmp_path, router, fallback=await start_engine(route))
    await door.api.start()
    await door.wait_until_up()
    async with door.client() as client:
        await client.get("/v1/models")
        request = asyncio.create_task(client.post("/v1/chat/completions", json={}))
        await died.wait()
        await router.stop()
        response = await request
    await door.api.stop()

    assert (response.status_code, response.text) == (200, "routed")


async def test_streams_that_end_with_their_router_are_counted(
    door: FrontDoor, router: FakeEngine
) -> None:
    """By HAProxy's termination state: server, in the data phase; good endings are not counted."""
    async with door.client() as client, client.stream("GET", "/stream") as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == b"first"
        await router.stop()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(parts)

    await until(lambda: bool(door.counts))
    assert door.counts == {"SD": 1}


async def test_counts_outlive_reloads(door: FrontDoor, router: FakeEngine) -> None:
    """The next supervisor goes on with those of the last one; old HAProxys report to it."""
    async with door.client() as client, client.stream("GET", "/stream") as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == b"first"
        await door.api.reload()
    await until(lambda: door.counts == {"CD": 1})
    async with door.client() as client, client.stream("GET", "/stream") as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == b"first"

    await until(lambda: door.counts == {"CD": 2})


async def test_one_router_of_a_node_publishes_what_haproxy_saw(
    door: FrontDoor, router: FakeEngine, idle: IdleConnections
) -> None:
    """When it is gone, the next one goes on with what has not been published."""
    recorder = KeptRecorder()
    first, second = (HAProxyReport(door.admin, "10.0.0.1", recorder) for _ in range(2))
    idle.open(3)
    reading = await asyncio.to_thread(first.read)
    assert reading is not None
    first.publish(reading)
    await router.stop()
    async with door.client() as client:
        await client.get("/v1/models")
    await until(lambda: bool(door.counts))

    assert second.read() is None
    first.close()
    left = await asyncio.to_thread(second.read)
    assert left is not None
    second.publish(left)
    again = await asyncio.to_thread(second.read)
    second.close()

    assert (reading.events, left.events) == ({}, {"SC": 1})
    assert again is not None
    assert again.events == {}
    assert recorder.gauges[HAPROXY_CONNECTIONS.name, ("10.0.0.1",)] >= 3
    limit = recorder.gauges[HAPROXY_CONNECTION_LIMIT.name, ("10.0.0.1",)]
    assert limit == ConnectionLimits.read({}).total
    assert recorder.counts[HAPROXY_CUT.name, ("10.0.0.1", "SC")] == 1


def test_serves_default_path_of_the_admin_socket_is_known() -> None:
    """Routers look for it there."""
    assert constants.RAY_SERVE_HAPROXY_SOCKET_PATH == HAPROXY_SOCKET_DEFAULT


def test_without_haproxy_nothing_is_published(tmp_path: Path) -> None:
    """As on a node where Serve runs none."""
    assert HAProxyReport(tmp_path / "no" / "admin.sock", "10.0.0.1", KeptRecorder()).read() is None


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (
            b"127.0.0.1:1 [29/Nov/2026:21:00:00.000] f b/s 0/0/1/2/3 200 9 - - SD-- 1/1/0/0/0 0/0",
            "SD",
        ),
        (
            b"127.0.0.1:1 [29/Nov/2026:21:00:00.000] f b/s 0/0/1/2/3 200 9 - - ---- 1/1/0/0/0 0/0",
            "",
        ),
        (b"Server http-gateway/r is DOWN, reason: Layer4 connection problem, info: x", ""),
        (b"", ""),
        (b"\xff" * 100, ""),
    ],
)
def test_the_termination_state_is_read_from_a_log_line(line: bytes, state: str) -> None:
    """Lines of another kind are left out."""
    assert state_of(line) == state


def test_the_script_ends_by_the_signal_that_it_passes_on(tmp_path: Path) -> None:
    """As a process without a supervisor would."""
    config = tmp_path / "haproxy.cfg"
    port = free_port()
    config.write_text(
        f"global\n    maxconn 10\n    stats socket {tmp_path / 'a.sock'} mode 666 level admin\n"
        "defaults\n    mode http\nfrontend prometheus\nfrontend http_frontend\n"
        f"    bind 127.0.0.1:{port}\n"
    )
    with subprocess.Popen(
        [SCRIPT, "-db", "-f", str(config)], stderr=subprocess.DEVNULL, env=os.environ
    ) as process:
        while _is_free(port):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) in (0, 128 + signal.SIGTERM)
