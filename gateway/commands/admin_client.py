"""Client of the admin API, for commands."""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp

from gateway.environment import ADMIN_KEY

DEFAULT_URL = "http://127.0.0.1:8000"
ORGANIZATION = "/v1/organization"
TIMEOUT_S = 30
PAGE = 100

Json = dict[str, Any]  # what an API answers
Query = Mapping[str, str | int | Sequence[str]]


class AdminError(Exception):
    """The gateway refuses what was asked, or cannot be reached."""


class AdminClient:
    """Asks one gateway."""

    def __init__(self, url: str, key: str = "") -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    @classmethod
    def at(cls, url: str) -> "AdminClient":
        """The client for an address, with the key of the environment."""
        return cls(url, os.environ.get(ADMIN_KEY, ""))

    def get(self, path: str, query: Query | None = None) -> Json:
        """What is at a path, below `/v1/organization`."""
        return self._ask("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Json:
        """Create or change something."""
        return self._ask("POST", path, body={} if body is None else body)

    def delete(self, path: str) -> Json:
        """Delete something."""
        return self._ask("DELETE", path)

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

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Json:
        return asyncio.run(self._request(method, path, _pairs(query or {}), body))

    async def _request(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]],
        body: Mapping[str, object] | None,
    ) -> Json:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        url = f"{self._url}{ORGANIZATION}{path}"
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session,
                # Another address must not get the key.
                session.request(
                    method, url, params=query, json=body, allow_redirects=False
                ) as response,
            ):
                answer = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AdminError(f"{url}: cannot be reached: {str(error) or 'no answer'}") from None
        except ValueError:
            raise AdminError(f"{url}: answers with something else than JSON") from None
        if status != 200 or not isinstance(answer, dict):
            raise AdminError(f"{url}: {_reason(status, answer, has_key=bool(self._headers))}")
        return answer


def path_part(text: str) -> str:
    """Text as one part of a path."""
    return quote(text, safe="*@")


def _pairs(query: Query) -> list[tuple[str, str]]:
    found = []
    for name, value in query.items():
        if isinstance(value, str | int):
            found.append((name, str(value)))
        else:
            found += [(f"{name}[]", each) for each in value]
    return found


def _reason(status: int, answer: object, *, has_key: bool) -> str:
    message = f"it answers {status}"
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        message = str(answer["error"].get("message", message))
    if status == 401 and not has_key:
        message += f" (set {ADMIN_KEY} to an admin key)"
    return message
