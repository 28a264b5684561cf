"""`/v1/organization`: routers let administrators in, and pass their requests on to Accounts."""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Depends, Request, Response

from gateway.asgi import Scope
from gateway.errors.administration import AccountsDown, Unsupported
from gateway.http.operators import only_admins
from gateway.serving.access import ADMIN
from gateway.serving.accounts_client import AccountsClient, AccountsUnavailable
from gateway.serving.accounts_follower import AccountsFollower
from gateway.serving.admin_call import AdminCall
from gateway.serving.body import read_body

PATHS = ("/v1/organization/{path:path}", "/v1/projects/{path:path}")
"""Paths of OpenAI's admin API; it has some of projects outside of the organization."""
METHODS = ["GET", "POST", "DELETE"]
MAX_BODY_MB = 0.25
TIMEOUT_S = 25.0
"""Most time for an answer: less than the command's own."""


def administration_router(
    accounts: AccountsClient | None,
    follower: AccountsFollower | None,
    address_of: Callable[[Scope], str],
) -> APIRouter:
    """The routes of the admin API; without `accounts` they say what is missing.

    `gateway.serving.access` lets administrators in, and nobody else. `follower`: knows what has
    changed before the answer goes out, so that a new key works at once. `address_of`: the address
    of a request's client.
    """
    router = APIRouter(include_in_schema=False, dependencies=[Depends(only_admins)])

    async def administer(request: Request) -> Response:
        """Have Accounts answer."""
        if accounts is None:
            raise Unsupported(
                "The admin API needs a database: set `accounts` in the args of the gateway's"
                " application. Projects in files are changed in their files."
            )
        call = await _call(request, address_of(request.scope))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await accounts.administer(call)
        except (AccountsUnavailable, TimeoutError):
            raise AccountsDown(
                "Accounts does not answer now. A change may have been made or not: look before you"
                " try again."
            ) from None
        if follower is not None and answer.changes:
            await follower.wait_for(answer.changes)
        response = Response(answer.body, answer.status)
        response.raw_headers += [each for each in answer.headers if each[0] != b"content-length"]
        return response

    for path in PATHS:
        router.add_api_route(path, administer, methods=METHODS)
    return router


async def _call(request: Request, address: str) -> AdminCall:
    headers = request.headers
    length = headers.get("content-length", "").encode() or None
    body = await read_body(request.receive, length, MAX_BODY_MB)
    scope = request.scope
    path = scope.get("raw_path") or scope["path"].encode()
    return AdminCall(
        method=request.method,
        path=path.partition(b"?")[0].decode("latin-1"),
        query=scope["query_string"],
        body=body,
        actor=scope[ADMIN],
        request_id=headers.get("x-request-id", "")[:100],
        address=address,
    )
