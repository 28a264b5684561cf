"""`/healthz` and `/readyz`, for load balancers and operators."""

from fastapi import APIRouter, Response
from pydantic import BaseModel

from gateway.http.models import HealthOf, model_card
from gateway.routing.fleet import Fleet, ModelState


class Health(BaseModel):
    """Health of the gateway."""

    status: str
    reasons: dict[str, str] = {}
    """Why models cannot answer, by name."""


def health_router(fleet: Fleet, health_of: HealthOf) -> APIRouter:
    """The routes that tell whether the gateway is up, and whether it can answer."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process is up."""
        return Health(status="ok")

    @router.get("/readyz", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """At least one model can answer."""
        cards = [model_card(model, health_of(model)) for model in fleet.models]
        silent = [c for c in cards if not c.replicas or c.state is ModelState.NOT_RESPONDING]
        reasons = {card.id: f"{card.state.replace('_', ' ')}: {card.reason}" for card in silent}
        if len(silent) < len(cards):
            return Health(status="ready", reasons=reasons)
        response.status_code = 503
        return Health(status="not ready", reasons=reasons)

    return router
