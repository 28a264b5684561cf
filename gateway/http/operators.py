"""`/gateway`: decisions, faults and config of the gateway, for its operators."""

import contextlib
from collections.abc import Sequence

import msgspec
from fastapi import APIRouter, Depends, Request

from gateway.asgi import header
from gateway.config.gateway import GatewayConfig
from gateway.config.route_paths import ROUTES
from gateway.errors.request import InvalidRequest, ModelNotFound, UnknownRoute, UnsupportedRoute
from gateway.errors.upstream import ModelUnavailable
from gateway.faults import Faults
from gateway.identity.client import OPEN_PROJECT, ClientIdentity
from gateway.request.inference_request import InferenceRequest, parse_request
from gateway.request.routes import CHAT, body_limit_mb
from gateway.routing.decision import LOG_SIZE, Decision
from gateway.serving.access import ADMIN
from gateway.serving.body import read_body
from gateway.serving.live_config import LiveConfig
from gateway.serving.pool import ModelPools
from gateway.serving.shadow import ShadowTraffic
from gateway.serving.target_resolver import TargetResolver


def operators_router(
    resolver: TargetResolver,
    pools: ModelPools,
    faults: Faults,
    shadows: ShadowTraffic,
    live_config: LiveConfig,
) -> APIRouter:
    """The routes for operators; `gateway.serving.access` lets nobody else in."""
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
        return _decide(resolver, pools, inference, names).explanation()

    router.add_api_route("/config", live_config.report)

    @router.get("/decisions")
    async def decisions(limit: int = LOG_SIZE, model: str | None = None) -> dict[str, object]:
        """The last decisions, newest first, with their outcomes."""
        found = [d for d in pools.decisions.latest() if model in (None, d.decision.model)]
        return {"object": "list", "data": [d.explanation() for d in found[: max(0, limit)]]}

    @router.get("/faults")
    async def fault_counts() -> dict[str, object]:
        """Faults since the router's start, and the action taken on each."""
        found = [
            {"model": fault.model, "reason": fault.reason, "action": fault.action, "count": count}
            for fault, count in faults.counts
        ]
        return {"object": "list", "data": found}

    @router.get("/shadows")
    async def shadow_stats() -> dict[str, object]:
        """Outcomes and times of models that answer copies of others' requests."""
        return {"object": "list", "data": shadows.report()}

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
