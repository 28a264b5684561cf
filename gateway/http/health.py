"""`/healthz` and `/readyz`, for load balancers and operators; and the probes that vLLM answers."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Response
from pydantic import BaseModel

from gateway.http.models import HealthOf, model_card
from gateway.routing.fleet import Fleet, ModelState

ACCOUNTS = "Accounts"
NO_KEYS = "projects and keys have not been read from the database yet"
DISTRIBUTION = "ray-llm-gateway"


class Health(BaseModel):
    """Health of the gateway."""

    status: str
    reasons: dict[str, str] = {}
    """Why models cannot answer, by name; and why clients cannot be told apart."""


class Version(BaseModel):
    """Version of the gateway."""

    version: str


def health_router(
    fleet: Fleet,
    health_of: HealthOf,
    shows_models: Callable[[], bool] = lambda: True,
    knows_clients: Callable[[], bool] = lambda: True,
) -> APIRouter:
    """The routes that tell whether the gateway is up, and whether it can answer.

    `shows_models`: whether everybody may know the names of models. `knows_clients`: whether there
    are keys that requests can be checked by.
    """
    router = APIRouter(tags=["health"])
    installed = _installed_version()

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process is up."""
        return Health(status="ok")

    @router.get("/readyz", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """At least one model can answer, and requests are let in."""
        cards = [model_card(model, health_of(model)) for model in fleet.models]
        silent = [c for c in cards if not c.replicas or c.state is ModelState.NOT_RESPONDING]
        shown = silent if shows_models() else []
        reasons = {card.id: f"{card.state.replace('_', ' ')}: {card.reason}" for card in shown}
        if not knows_clients():
            reasons[ACCOUNTS] = NO_KEYS
        elif len(silent) < len(cards):
            return Health(status="ready", reasons=reasons)
        response.status_code = 503
        return Health(status="not ready", reasons=reasons)

    @router.get("/health", response_class=Response)
    @router.get("/ping", response_class=Response)
    @router.post("/ping", response_class=Response)
    async def ping() -> Response:
        """The process is up, as clients and probes ask vLLM."""
        return Response()

    @router.get("/version")
    async def gateway_version() -> Version:
        """The version of the gateway, not of its engines."""
        return Version(version=installed)

    return router


def _installed_version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # it runs from a folder of its source
        return "unknown"
