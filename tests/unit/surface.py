"""The gateway's application over fake engines, called directly, without a server."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import httpx

from gateway.asgi import App
from gateway.assembly import RouterOptions, build_router
from gateway.config.loader import parse_gateway
from gateway.metrics import Recorder
from gateway.routing.fleet import Fleet, ModelState, ServedModel
from gateway.serving.tracing import Tracer
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import FakeEngine, Visit

CHAT = "/v1/chat/completions"


class Surface:
    """A router with its fleet, and the starts that it has requested."""

    def __init__(
        self,
        upstream: UpstreamClient,
        *,
        recorder: Recorder | None = None,
        tracer: Tracer | None = None,
        is_local: bool = True,
        trusts_requests: bool = False,
    ) -> None:
        self.fleet = Fleet()
        self.woken: list[str] = []
        self.wakes: list[int] = []
        self._loads: list[asyncio.Task[httpx.Response]] = []
        rng = random.Random(1)  # noqa: S311 - it breaks ties only
        options = RouterOptions(
            is_local=is_local,
            recorder=recorder,
            tracer=tracer,
            rng=rng,
            trusts_requests=trusts_requests,
        )
        self.router = build_router(self.fleet, self.wake, upstream=upstream, options=options)
        self.pools = self.router.pools
        self.context = self.router.context
        self.live_config = self.router.live_config
        self.app: App = self.router.app
        self.configure()

    def configure(self, **config: object) -> None:
        """Go by this gateway config, with operators' routes that need no key."""
        self.live_config.apply(parse_gateway({"open_on_loopback": True, **config}))

    def wake(self, model: ServedModel, waiting: int) -> None:
        """Record a requested start: the model, and how many requests wait for it."""
        self.wakes.append(waiting)
        if waiting:
            self.woken.append(model.name)

    def add(
        self, name: str, *engines: FakeEngine, routes: tuple[str, ...] = (CHAT,)
    ) -> ServedModel:
        """Add a model, ready if it has engines."""
        model = ServedModel(name, created_s=7)
        self.fleet.add(model)
        if engines:
            model.state = ModelState.READY
            self.fleet.model(name).replace_replicas([engine.replica(routes) for engine in engines])
        return model

    def load(self, name: str) -> None:
        """Send a request without waiting for its answer."""
        self._loads.append(asyncio.create_task(self.client().post(CHAT, json={"model": name})))

    def client(self) -> httpx.AsyncClient:
        """A client of the application, without a server between."""
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def script(*parts: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Answer every request with `parts`."""

    async def run(tracked: Visit) -> None:
        await tracked.send(*parts)

    return run


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and param of an error, whose shape is checked."""
    body = response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return response.status_code, body["code"], body["param"]
