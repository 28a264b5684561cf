"""`/v1/models`: which models there are, and how they stand."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.api.documents import ERROR
from gateway.routing.fleet import Fleet, Model, ModelState


class ModelCard(BaseModel):
    """OpenAI's model object, and how the model stands."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ray-llm-gateway"
    state: ModelState
    reason: str | None = None
    replicas: int
    max_model_len: int | None = None


class ModelList(BaseModel):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def models_router(fleet: Fleet) -> APIRouter:
    """The routes that list and retrieve models."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", response_model_exclude_none=True)
    async def list_models() -> ModelList:
        """List all models."""
        return ModelList(data=[_card(model) for model in fleet.models])

    @router.get("/v1/models/{model:path}", response_model_exclude_none=True, responses={404: ERROR})
    async def retrieve_model(model: str) -> ModelCard:
        """Retrieve one model; its name may hold slashes."""
        return _card(fleet.model(model))

    return router


def _card(model: Model) -> ModelCard:
    return ModelCard(
        id=model.name,
        created=model.created_s,
        state=model.state,
        reason=None if model.state is ModelState.READY else model.reason,
        replicas=len(model.replicas),
        max_model_len=model.max_model_len,
    )
