"""`/gateway`: what all routers tell the gateway's operators, and decisions for dry runs."""

import contextlib
from collections.abc import Sequence

import msgspec
from fastapi import APIRouter, Depends, Request

from gateway.asgi import header
from gateway.config.gateway import GatewayConfig
from gateway.config.route_paths import ROUTES
from gateway.errors.request import (
    InvalidRequest,
    ModelNotFound,
    RequestNotFound,
    UnknownRoute,
    UnsupportedRoute,
)
from gateway.errors.upstream import ModelUnavailable
from gateway.identity.client import OPEN_PROJECT, ClientIdentity
from gateway.inspection.all_routers import AllRouters
from gateway.inspection.model_rows import merged_models
from gateway.inspection.query import Query, QueryTopic
from gateway.inspection.replica_rows import merged_replicas
from gateway.request.inference_request import InferenceRequest, parse_request
from gateway.request.routes import CHAT, body_limit_mb
from gateway.routing.decision import LOG_SIZE, Decision
from gateway.serving.access import ADMIN
from gateway.serving.body import read_body
from gateway.serving.live_config import LiveConfig
from gateway.serving.pool import ModelPools
from gateway.serving.target_resolver import TargetResolver


def operators_router(
    resolver: TargetResolver,
    pools: ModelPools,
    live_config: LiveConfig,
    all_routers: AllRouters,
) -> APIRouter:
    """The routes for operators; `gateway.serving.access` lets nobody else in.

    All but `/gateway/route` answer for all routers: each row names its own.
    """
    router = APIRouter(
        prefix="/gateway", include_in_schema=False, dependencies=[Depends(only_admins)]
    )

    @router.post("/route")
    async def route(
        request: Request,
        path: str = CHAT,
        project: str = "",
        key: str = "",
    ) -> dict[str, object]:
        """Decision for a request with this body, sent to `path` now; it is not sent.

        `project`, `key`: the client's, whose cached prefixes count; by default nobody's.
        """
        owner = live_config.directory.project(project) if project else OPEN_PROJECT
        if owner is None:
            raise InvalidRequest("There is no such project.", "project")
        inference = msgspec.structs.replace(
            await _dry_run(request, path, live_config.config),
            identity=ClientIdentity(project=owner, key=key),
        )
        names = live_config.names.route(inference.head.model, inference.sticky_key).models
        decision = _decide(resolver, pools, inference, names)
        return {"router": all_routers.own, **decision.explanation()}

    router.include_router(_listings(all_routers))
    return router


def _listings(all_routers: AllRouters) -> APIRouter:
    """The routes that ask all routers."""
    router = APIRouter()

    @router.get("/config")
    async def config() -> dict[str, object]:
        """The config in force in each router, and the problems of one that it has rejected."""
        return (await all_routers.ask(Query(topic=QueryTopic.CONFIG))).page()

    @router.get("/decisions")
    async def decisions(limit: int = LOG_SIZE, model: str | None = None) -> dict[str, object]:
        """The last decisions, newest first, with their outcomes."""
        query = Query(topic=QueryTopic.DECISIONS, limit=max(0, limit), model=model)
        listing = await all_routers.ask(query)
        newest = sorted(listing.rows, key=lambda row: -float(str(row["decided_s"])))
        return listing.page(newest[: query.limit])

    @router.get("/faults")
    async def faults() -> dict[str, object]:
        """Faults since each router's start, and the action taken on each."""
        return (await all_routers.ask(Query(topic=QueryTopic.FAULTS))).page()

    @router.get("/requests/{request_id:path}")
    async def request(request_id: str) -> dict[str, object]:
        """Where a request went, and how it ended, or how far it is."""
        listing = await all_routers.ask(Query(topic=QueryTopic.REQUEST, request_id=request_id))
        if not listing.rows:
            raise RequestNotFound.of(request_id, listing.missing)
        return listing.page()

    @router.get("/shadows")
    async def shadows() -> dict[str, object]:
        """Outcomes and times of models that answer copies of others' requests."""
        return (await all_routers.ask(Query(topic=QueryTopic.SHADOWS))).page()

    router.include_router(_fleet_listings(all_routers))
    return router


def _fleet_listings(all_routers: AllRouters) -> APIRouter:
    """Those that say how models and replicas are."""
    router = APIRouter()

    @router.get("/models")
    async def models() -> dict[str, object]:
        """Each model: how it stands and why, its replicas by state, its requests."""
        listing = await all_routers.ask(Query(topic=QueryTopic.MODELS))
        return listing.page(merged_models(listing.rows))

    @router.get("/replicas")
    async def replicas(model: str | None = None) -> dict[str, object]:
        """Each engine replica: where it is, how it is, and what it holds."""
        listing = await all_routers.ask(Query(topic=QueryTopic.REPLICAS, model=model))
        return listing.page(merged_replicas(listing.rows))

    return router


def only_admins(request: Request) -> None:
    """Check that the request was let in with an admin key.

    Raises:
        UnknownRoute: it was not, because its path is not one for administrators.
    """
    if ADMIN not in request.scope:
        raise UnknownRoute.for_url(request.method, request.url.path)


async def _dry_run(request: Request, path: str, config: GatewayConfig) -> InferenceRequest:
    """The inference request that this one describes."""
    if path not in ROUTES:
        known = ", ".join(sorted(ROUTES))
        raise InvalidRequest(f"`path` must be one of {known}.", "path")
    headers = request.headers.raw
    length = header(headers, b"content-length", b"")
    body = await read_body(request.receive, length or None, body_limit_mb(path, config))
    return parse_request(path, body, dict(headers), headers=[], request_id=b"dry-run")


def _decide(
    resolver: TargetResolver,
    pools: ModelPools,
    request: InferenceRequest,
    names: Sequence[str],
) -> Decision:
    """The decision for the first of the models that is available, or the error of the last one."""
    *others, last = names
    for name in others:
        with contextlib.suppress(ModelNotFound, ModelUnavailable, UnsupportedRoute):
            target = resolver.target(request, name)
            return pools.of(target.model).scheduler.choose(target)
    target = resolver.target(request, last)
    return pools.of(target.model).scheduler.choose(target)
