"""Client of the admin API, for commands."""

import os
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from gateway.commands.api_client import ApiClient, Json, Query
from gateway.environment import ADMIN_KEY

ORGANIZATION = "/v1/organization"
PAGE = 100


class AdminClient:
    """Administers one gateway; paths are below `/v1/organization`."""

    def __init__(self, url: str, key: str = "") -> None:
        self._client = ApiClient(url, key, ORGANIZATION)

    @classmethod
    def at(cls, url: str) -> "AdminClient":
        """The client for an address, with the key of the environment."""
        return cls(url, os.environ.get(ADMIN_KEY, ""))

    def get(self, path: str, query: Query | None = None) -> Json:
        """What is at a path."""
        return self._client.ask("GET", path, query)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Json:
        """Create or change something."""
        return self._client.ask("POST", path, body={} if body is None else body)

    def delete(self, path: str) -> Json:
        """Delete something."""
        return self._client.ask("DELETE", path)

    def list_all(self, path: str, query: Query | None = None) -> Iterator[Json]:
        """All objects of a list."""
        after: dict[str, str] = {}
        while True:
            page = self.get(path, {**(query or {}), **after, "limit": PAGE})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def buckets(self, path: str, query: Query) -> Iterator[Json]:
        """All periods of usage or costs."""
        token: dict[str, str] = {}
        while True:
            page = self.get(path, {**query, **token})
            yield from page["data"]
            if not page["has_more"]:
                return
            token = {"page": page["next_page"]}


def path_part(text: str) -> str:
    """Text as one part of a path."""
    return quote(text, safe="*@")
