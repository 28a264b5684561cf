"""What tests of the admin API ask, and rows of the ledger for them."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, insert

from gateway.asgi import Receive, Scope, Send
from gateway.http.organization.app import Administration
from gateway.serving.admin_call import AdminCall
from gateway.store.database import Database
from gateway.store.tables import ROLL_UPS

NOW_S = 1_796_001_000.0
"""A time in UTC, early on 2026-11-30."""
DAY_S = 86_400
TODAY_S = int(NOW_S) - int(NOW_S) % DAY_S
ACTOR = "key_admin"
Json = dict[str, Any]  # what an API answers

EMPTY: Mapping[str, object] = MappingProxyType({})


class AdminApi:
    """The admin API of one database, without a router in front."""

    def __init__(self, administration: Administration, database: Database) -> None:
        self.administration = administration
        self.database = database
        self.actor = ACTOR

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on as a router does, whoever has sent it."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        call = AdminCall(
            method=scope["method"],
            path=scope["raw_path"].decode().partition("?")[0],
            query=scope["query_string"],
            body=body,
            actor=self.actor,
            address="192.0.2.7",
        )
        answer = await self.administration.administer(call)
        start = {"type": "http.response.start", "status": answer.status}
        await send({**start, "headers": list(answer.headers)})
        await send({"type": "http.response.body", "body": answer.body})

    async def ask(
        self, method: str, path: str, body: object = None, query: str = ""
    ) -> tuple[int, Json]:
        """Status and JSON of the answer to a request below `/v1/organization`."""
        call = AdminCall(
            method=method,
            path=f"/v1/organization{path}",
            query=query.encode(),
            body=b"" if body is None else json.dumps(body).encode(),
            actor=self.actor,
        )
        answer = await self.administration.administer(call)
        return answer.status, json.loads(answer.body)

    async def create_project(self, name: str = "search", **settings: object) -> str:
        """Create a project; returns its id."""
        _, project = await self.ask("POST", "/projects", {"name": name, **settings})
        return str(project["id"])

    async def create_account(self, project: str, name: str = "bot") -> Json:
        """Create a service account with a key."""
        _, account = await self.ask("POST", f"/projects/{project}/service_accounts", {"name": name})
        return account

    async def add_usage(self, at_s: int = TODAY_S, values: Mapping[str, object] = EMPTY) -> None:
        """Add a row to the sums of all widths."""
        row = {"model": "large", "tier": "default", "endpoint": "/v1/chat/completions", **values}
        row = {"requests": 1, "attempts": 1, **row}

        def add(connection: Connection) -> None:
            for width_s, table in ROLL_UPS.items():
                connection.execute(insert(table).values(at_s=at_s - at_s % width_s, **row))

        await self.database.write(add)
