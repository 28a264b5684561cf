"""`/healthz` and `/readyz`, for whoever runs the gateway."""

from fastapi import APIRouter, Response
from pydantic import BaseModel

from gateway.routing.fleet import Fleet


class Health(BaseModel):
    """How the gateway stands."""

    status: str
    reasons: dict[str, str] = {}
    """Why a model cannot answer, by model."""


def health_router(fleet: Fleet) -> APIRouter:
    """The routes that tell whether the gateway is up, and whether it is of use."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process is up."""
        return Health(status="ok")

    @router.get("/readyz", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """At least one model can answer."""
        reasons = {m.name: f"{m.condition}: {m.reason}" for m in fleet.models if not m.replicas}
        if fleet.is_ready:
            return Health(status="ready", reasons=reasons)
        response.status_code = 503
        return Health(status="not ready", reasons=reasons)

    return router
