"""Routes of OpenAI's admin API that the gateway does not have, and the reason for each."""

from fastapi import APIRouter

from gateway.errors.administration import Unsupported
from gateway.http.organization.parts import PROJECT

NO_ROLES = (
    "The gateway has no roles beyond administrators, who send an admin key or a token with that"
    " role, and project keys."
)
NO_GROUPS = (
    "The gateway has no groups. A token's groups are mapped to projects in the gateway config."
)
NO_CERTIFICATES = (
    "The gateway checks no client certificates. A proxy in front of it can ask for them."
)
NO_RETENTION = (
    "The gateway keeps no prompts and no answers. How long usage is kept is set in `accounts`."
)
REASONS = {
    "/v1/organization/certificates": NO_CERTIFICATES,
    f"{PROJECT}/certificates": NO_CERTIFICATES,
    "/v1/organization/data_retention": NO_RETENTION,
    f"{PROJECT}/data_retention": NO_RETENTION,
    "/v1/organization/external_keys": "The gateway stores nothing that a customer's key encrypts.",
    "/v1/organization/external_storage": "The gateway stores no files.",
    "/v1/organization/groups": NO_GROUPS,
    f"{PROJECT}/groups": NO_GROUPS,
    "/v1/projects/{project_id}/groups": NO_GROUPS,
    "/v1/organization/invites": (
        "The gateway sends no invitations. Add a user to a project by an email address."
    ),
    "/v1/organization/roles": NO_ROLES,
    "/v1/organization/users/{user_id}/roles": NO_ROLES,
    "/v1/projects/{project_id}/roles": NO_ROLES,
    "/v1/projects/{project_id}/users/{user_id}/roles": NO_ROLES,
    f"{PROJECT}/hosted_tool_permissions": "The gateway hosts no tools.",
    "/v1/organization/spend_limit": "Spend limits belong to projects.",
    "/v1/organization/spend_alerts": "Spend alerts belong to projects.",
    "/v1/organization/workload_identity_providers": (
        "Issuers of tokens are named in the gateway config (`auth`)."
    ),
}
"""Beginnings of paths, and why there is nothing there."""
METHODS = ["GET", "POST", "DELETE"]


def unsupported_router() -> APIRouter:
    """Routes that say why they do nothing."""
    router = APIRouter()
    for path, reason in REASONS.items():
        _refuse(router, path, reason)
    return router


def _refuse(router: APIRouter, path: str, reason: str) -> None:
    async def refuse() -> None:
        raise Unsupported(reason)

    router.add_api_route(path, refuse, methods=METHODS)
    router.add_api_route(f"{path}/{{rest:path}}", refuse, methods=METHODS)
