"""`/gateway`: what the gateway decides and why, for the people who run it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Depends, Request

from gateway.api.body import Limits, read_body
from gateway.api.errors import unknown_url
from gateway.api.routes import ROUTES, parse_head
from gateway.api.selection import Selector
from gateway.errors import InvalidKey, InvalidRequest, UnknownRoute
from gateway.faults import Faults
from gateway.routing.decision import KEPT, DecisionLog


@dataclass(slots=True)
class Access:
    """Who may use the operators' routes; may be changed while the gateway runs."""

    admin_key: str | None = None
    """The bearer token that opens them."""
    is_local: bool = False
    """Whether the gateway can be reached from this machine only: then no key is needed."""

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Let an operator in.

        Raises:
            InvalidKey: the key is missing or wrong.
            UnknownRoute: there are no such routes here, because no key is set.
        """
        if self.admin_key is None:
            if not self.is_local:
                raise UnknownRoute(unknown_url(method, path))
            return
        offered = headers.get("authorization", "").encode()
        if not secrets.compare_digest(offered, b"Bearer " + self.admin_key.encode()):
            raise InvalidKey("The routes under /gateway need the admin key as bearer token.")


def operators_router(
    selector: Selector, log: DecisionLog, faults: Faults, limits: Limits, access: Access
) -> APIRouter:
    """The routes for operators."""

    def only_operators(request: Request) -> None:
        access.check(request.method, request.url.path, request.headers)

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
        body = await read_body(request.receive, length.encode() if length else None, limits)
        head = parse_head(path, body, headers.get("content-type", "").encode())
        session = headers.get("x-session-id", "").encode("latin-1")
        selection = selector.select(path, head, session, b"dry-run", is_dry_run=True)
        return selection.choose().explanation()

    @router.get("/decisions")
    async def decisions(limit: int = KEPT, model: str | None = None) -> dict[str, object]:
        """The last decisions, newest first, and how they turned out."""
        found = [d for d in log.latest() if model in (None, d.model)]
        return {"object": "list", "data": [d.explanation() for d in found[: max(0, limit)]]}

    @router.get("/faults")
    async def fault_counts() -> dict[str, object]:
        """What went wrong since the router's start, and what was done about it."""
        found = [
            {"model": fault.model, "reason": fault.reason, "action": fault.action, "count": count}
            for fault, count in faults.counts
        ]
        return {"object": "list", "data": found}

    return router
