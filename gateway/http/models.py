"""`/v1/models`: which models there are, and how they stand."""

from collections.abc import Iterator, Mapping
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.config.model_names import ModelNames
from gateway.errors import ModelNotFound
from gateway.http.documents import ERROR
from gateway.routing.fleet import Fleet, ModelState, ServedModel
from gateway.serving.live_config import LiveConfig


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
    parent: str | None = None
    """Of an adapter: the model it belongs to."""
    loaded_replicas: int | None = None
    """Of an adapter: on how many of the replicas it is loaded now."""
    stands_for: list[str] | None = None
    """Of an alias or a split: the models that answer, in their names' order."""


class ModelList(BaseModel):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def models_router(fleet: Fleet, live_config: LiveConfig) -> APIRouter:
    """The routes that list and retrieve models."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", response_model_exclude_none=True)
    async def list_models() -> ModelList:
        """List all models, adapters, aliases and splits."""
        return ModelList(data=[*cards_of(fleet, live_config.names).values()])

    @router.get("/v1/models/{model:path}", response_model_exclude_none=True, responses={404: ERROR})
    async def retrieve_model(model: str) -> ModelCard:
        """Retrieve one model; its name may hold slashes."""
        card = cards_of(fleet, live_config.names).get(model)
        if card is None:
            raise ModelNotFound(model)
        return card

    return router


def cards_of(fleet: Fleet, names: ModelNames) -> dict[str, ModelCard]:
    """The cards of all that clients may ask for, by name: models, their adapters, names for them.

    What has the name of an alias or a split cannot be asked for by it: that has the card.
    """
    cards = {model.name: model_card(model) for model in fleet.models}
    cards |= {name: adapter_card(model, name) for name, model in fleet.adapters.items()}
    named: dict[str, ModelCard | None] = dict.fromkeys(each.name for each in names.listed)
    named |= {card.id: card for card in name_cards(names, cards)}
    return {name: card for name, card in (cards | named).items() if card}


def name_cards(names: ModelNames, cards: Mapping[str, ModelCard]) -> Iterator[ModelCard]:
    """Aliases and splits; a name stands as the first model of its own that is ready, or is known.

    One that stands for no model that is known has no card.
    """
    for listed in names.listed:
        found = [cards[model] for model in listed.shares if model in cards]
        if not found:
            continue
        best = next((card for card in found if card.state is ModelState.READY), found[0])
        lengths = [card.max_model_len for card in found if card.max_model_len is not None]
        update = {
            "id": listed.name,
            "replicas": sum(card.replicas for card in found),
            "max_model_len": min(lengths, default=None),
            "parent": None,
            "loaded_replicas": None,
            "stands_for": sorted(listed.shares),
        }
        yield best.model_copy(update=update)


def adapter_card(model: ServedModel, adapter: str) -> ModelCard:
    """An adapter stands as its model does, unless no engine can load it."""
    states = [replica.adapters for replica in model.replicas.values()]
    broken = model.adapter_error(adapter)
    card = model_card(model)
    return card.model_copy(
        update={
            "id": adapter,
            "state": ModelState.UNHEALTHY if broken else card.state,
            "reason": f"it cannot be loaded: {broken}" if broken else card.reason,
            "parent": model.name,
            "loaded_replicas": sum(adapter in state.loaded for state in states),
        }
    )


def model_card(model: ServedModel) -> ModelCard:
    """How a model stands."""
    return ModelCard(
        id=model.name,
        created=model.created_s,
        state=model.state,
        reason=model.reason or None,
        replicas=len(model.replicas),
        max_model_len=model.max_model_len,
    )
