"""`/v1/models`: the models, with their states."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from gateway.config.model_names import ModelNames
from gateway.errors.request import ModelNotFound, UnknownRoute
from gateway.http.anthropic_models import (
    PAGE_PARAMETERS,
    AnthropicModel,
    anthropic_model,
    page_of,
    page_query,
    speaks_anthropic,
)
from gateway.http.documents import ERROR
from gateway.routing.fleet import Fleet, ModelState, ServedModel
from gateway.routing.model_condition import model_condition
from gateway.routing.replica_health import HEALTHY
from gateway.serving.client_identity import identity_in
from gateway.serving.live_config import LiveConfig
from gateway.serving.model_access import may_use

UNKNOWN_HEALTH: Mapping[str, int] = MappingProxyType({})
HealthOf = Callable[[ServedModel], Mapping[str, int]]
"""Number of a model's replicas in each `HealthState`, as this router sees them."""


class ModelCard(BaseModel):
    """OpenAI's model object, with the state of the model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "ray-llm-gateway"
    state: ModelState
    reason: str | None = None
    replicas: int
    replica_states: dict[str, int] | None = None
    """Replicas by state, as `gateway_replicas` counts them; left out while all are well."""
    max_model_len: int | None = None
    parent: str | None = None
    """The model that an adapter belongs to."""
    loaded_replicas: int | None = None
    """Replicas on which an adapter is loaded now."""
    stands_for: list[str] | None = None
    """Models that answer for an alias or a split, sorted by name."""


class ModelList(BaseModel):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def models_router(fleet: Fleet, live_config: LiveConfig, health_of: HealthOf) -> APIRouter:
    """The routes that list and retrieve models."""
    router = APIRouter(tags=["models"])

    def cards(request: Request) -> dict[str, ModelCard]:
        names, identity = live_config.names, identity_in(request.scope)
        found = cards_of(fleet, names, health_of)
        return {name: card for name, card in found.items() if may_use(identity, name, names)}

    @router.get(
        "/v1/models",
        response_model=ModelList,
        response_model_exclude_none=True,
        openapi_extra={"parameters": PAGE_PARAMETERS},
    )
    async def list_models(request: Request) -> ModelList | Response:
        """List all models, adapters, aliases and splits that the client may use.

        Clients of Anthropic's API get its list, a page at a time.
        """
        found = [*cards(request).values()]
        if speaks_anthropic(request.scope):
            return _answer(page_of([*map(_for_anthropic, found)], page_query(request)))
        return ModelList(data=found)

    @router.get(
        "/v1/models/{model:path}",
        response_model=ModelCard,
        response_model_exclude_none=True,
        responses={404: ERROR},
    )
    async def retrieve_model(model: str, request: Request) -> ModelCard | Response:
        """Retrieve one model; its name may hold slashes."""
        card = cards(request).get(model)
        if not model or model.endswith("/"):
            raise UnknownRoute.for_url(request.method, request.url.path)
        if card is None:
            raise ModelNotFound(model)
        return _answer(_for_anthropic(card)) if speaks_anthropic(request.scope) else card

    return router


def _for_anthropic(card: ModelCard) -> AnthropicModel:
    return anthropic_model(card.id, card.created, card.max_model_len)


def _answer(content: BaseModel) -> Response:
    return Response(content.model_dump_json(), media_type="application/json")


def cards_of(fleet: Fleet, names: ModelNames, health_of: HealthOf) -> dict[str, ModelCard]:
    """Cards by name of all that clients may ask for: models, adapters, aliases and splits.

    An alias or a split hides the model or adapter of its name.
    """
    cards = {model.name: model_card(model, health_of(model)) for model in fleet.models}
    for name, model in fleet.adapters.items():
        cards[name] = adapter_card(model, name, health_of(model))
    named: dict[str, ModelCard | None] = dict.fromkeys(each.name for each in names.listed)
    named |= {card.id: card for card in name_cards(names, cards)}
    return {name: card for name, card in (cards | named).items() if card}


def name_cards(names: ModelNames, cards: Mapping[str, ModelCard]) -> Iterator[ModelCard]:
    """Cards of aliases and splits, with the state of the first of their models that is ready.

    A name that stands for no known model has no card.
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
            "replica_states": None,
            "max_model_len": min(lengths, default=None),
            "parent": None,
            "loaded_replicas": None,
            "stands_for": sorted(listed.shares),
        }
        yield best.model_copy(update=update)


def adapter_card(
    model: ServedModel, adapter: str, health: Mapping[str, int] = UNKNOWN_HEALTH
) -> ModelCard:
    """Card of an adapter, with the state of its model, unless no engine can load it."""
    states = [replica.adapters for replica in model.replicas.values()]
    broken = model.adapter_error(adapter)
    card = model_card(model, health)
    return card.model_copy(
        update={
            "id": adapter,
            "state": ModelState.UNHEALTHY if broken else card.state,
            "reason": f"it cannot be loaded: {broken}" if broken else card.reason,
            "parent": model.name,
            "loaded_replicas": sum(adapter in state.loaded for state in states),
        }
    )


def model_card(model: ServedModel, health: Mapping[str, int] = UNKNOWN_HEALTH) -> ModelCard:
    """Card of a model, whose replicas hang or not as `health` says."""
    state, reason = model_condition(model, health)
    return ModelCard(
        id=model.name,
        created=model.created_s,
        state=state,
        reason=reason or None,
        replicas=len(model.replicas),
        replica_states=dict(health) if health.keys() - set(HEALTHY) else None,
        max_model_len=model.max_model_len,
    )
