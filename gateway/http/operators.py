"""`/gateway`: what the gateway decides and why, for the people who run it."""

import contextlib
from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request

from gateway.errors import InvalidRequest, ModelNotFound, ModelUnavailable, UnsupportedRoute
from gateway.faults import Faults
from gateway.header_names import SESSION
from gateway.request.inference_request import SESSION_LIMIT, InferenceRequest
from gateway.request.routes import ROUTES, parse_head
from gateway.routing.decision import LOG_SIZE, Decision
from gateway.routing.schedulers import Schedulers
from gateway.serving.body import read_body
from gateway.serving.live_config import LiveConfig
from gateway.serving.shadow import ShadowTraffic
from gateway.serving.target_resolver import TargetResolver


def operators_router(
    resolver: TargetResolver,
    schedulers: Schedulers,
    faults: Faults,
    shadows: ShadowTraffic,
    live_config: LiveConfig,
) -> APIRouter:
    """The routes for operators."""

    def only_operators(request: Request) -> None:
        live_config.access.check(request.method, request.url.path, request.headers)

    router = APIRouter(
        prefix="/gateway", include_in_schema=False, dependencies=[Depends(only_operators)]
    )

    @router.post("/route")
    async def route(request: Request, path: str = "/v1/chat/completions") -> dict[str, object]:
        """Where a request with this body, sent to `path`, would go now; it is not sent."""
        if path not in ROUTES:
            known = ", ".join(sorted(ROUTES))
            raise InvalidRequest(f"`path` must be one of {known}.", "path")
        headers = request.headers
        length = headers.get("content-length")
        body = await read_body(
            request.receive, length.encode() if length else None, live_config.limits
        )
        head = parse_head(path, body, headers.get("content-type", "").encode())
        session = headers.get(SESSION.decode(), "").encode("latin-1")
        inference = InferenceRequest(
            head=head, path=path, body=body, request_id=b"dry-run", session=session[:SESSION_LIMIT]
        )
        names = live_config.names.route(head.model, inference.sticky_key).models
        return _decide(resolver, schedulers, inference, names).explanation()

    router.add_api_route("/config", live_config.report)

    @router.get("/decisions")
    async def decisions(limit: int = LOG_SIZE, model: str | None = None) -> dict[str, object]:
        """The last decisions, newest first, and how they turned out."""
        found = [d for d in schedulers.log.latest() if model in (None, d.decision.model)]
        return {"object": "list", "data": [d.explanation() for d in found[: max(0, limit)]]}

    @router.get("/faults")
    async def fault_counts() -> dict[str, object]:
        """What went wrong since the router's start, and what was done about it."""
        found = [
            {"model": fault.model, "reason": fault.reason, "action": fault.action, "count": count}
            for fault, count in faults.counts
        ]
        return {"object": "list", "data": found}

    @router.get("/shadows")
    async def shadow_records() -> dict[str, object]:
        """How models have done with copies of others' requests."""
        return {"object": "list", "data": shadows.report()}

    return router


def _decide(
    resolver: TargetResolver,
    schedulers: Schedulers,
    inference: InferenceRequest,
    names: Sequence[str],
) -> Decision:
    """The decision for the first of the models that can be chosen for, or the last's error."""
    *others, last = names
    for name in others:
        with contextlib.suppress(ModelNotFound, ModelUnavailable, UnsupportedRoute):
            target = resolver.target(inference, name)
            return schedulers.of(target.model).choose(target)
    target = resolver.target(inference, last)
    return schedulers.of(target.model).choose(target)
