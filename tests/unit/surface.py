"""The gateway's application as its clients see it, without a server between, over fake engines."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import httpx

from gateway.admission.admissions import Admissions
from gateway.admission.cold_start import ColdStarts
from gateway.asgi import App
from gateway.http.app import create_app
from gateway.routing.fleet import Fleet, ModelState, ServedModel
from gateway.routing.schedulers import Schedulers
from gateway.serving.attempts import RouterContext
from gateway.serving.live_config import LiveConfig
from gateway.serving.request_metrics import RequestMetrics
from gateway.upstream.client import UpstreamClient
from gateway.upstream.engine_call import EngineClient
from tests.unit.conftest import FakeEngine, Visit

CHAT = "/v1/chat/completions"


class Surface:
    """An application with its fleet, and what it did to them."""

    def __init__(
        self,
        upstream: UpstreamClient,
        *,
        request_metrics: RequestMetrics | None = None,
    ) -> None:
        self.fleet = Fleet()
        self.live_config = LiveConfig()
        self.schedulers = Schedulers(self.fleet, random.Random(1), time.time)  # noqa: S311 - breaks ties only
        self.woken: list[str] = []
        self.wakes: list[int] = []
        self._loads: list[asyncio.Task[httpx.Response]] = []
        self.context = RouterContext(
            EngineClient(upstream),
            self.schedulers,
            Admissions(self.fleet, self.schedulers, time.monotonic),
            ColdStarts(self.fleet, self.wake),
        )
        self.gateway = create_app(
            self.fleet,
            self.schedulers,
            self.context,
            live_config=self.live_config,
            request_metrics=request_metrics,
        )
        self.app: App = self.gateway

    def wake(self, model: ServedModel, waiting: int) -> None:
        """Note who is waited for."""
        self.wakes.append(waiting)
        if waiting:
            self.woken.append(model.name)

    def add(
        self, name: str, *engines: FakeEngine, routes: tuple[str, ...] = (CHAT,)
    ) -> ServedModel:
        """Make a model known, ready if it has engines."""
        model = ServedModel(name, created_s=7)
        self.fleet.add(model)
        if engines:
            model.state = ModelState.READY
            self.fleet.model(name).replace_replicas([engine.replica(routes) for engine in engines])
        return model

    def load(self, name: str) -> None:
        """Send a request whose answer nobody waits for."""
        self._loads.append(asyncio.create_task(self.client().post(CHAT, json={"model": name})))

    def client(self) -> httpx.AsyncClient:
        """A client of the application, without a server between."""
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://gateway")


def script(*parts: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Answer every request with `parts`."""

    async def run(tracked: Visit) -> None:
        await tracked.send(*parts)

    return run


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and param of an error, whose shape is checked."""
    (body,) = response.json().values() if "type" not in response.json() else [None]
    body = body or response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return response.status_code, body["code"], body["param"]
