"""State over a database and a folder, asked on behalf of projects."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import openai

from gateway.http.state.app import StateApp
from gateway.store.project_state import ProjectState

NOW_S = 1_796_001_000
Json = dict[str, Any]  # what an API answers


class Clock:
    """A time of day that tests set."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        """The time."""
        return self.now_s


class StateApi:
    """State's application, without a server and a router."""

    def __init__(self, state: ProjectState, clock: Clock) -> None:
        self.state = state
        self.clock = clock
        self.app = StateApp(state)

    @asynccontextmanager
    async def http(self, project: str = "proj_a") -> AsyncIterator[httpx2.AsyncClient]:
        """A client of HTTP that asks for a project."""
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url="http://state",
            headers={"x-gateway-project": quote(project, safe="")},
        ) as client:
            yield client

    @asynccontextmanager
    async def openai(self, project: str = "proj_a") -> AsyncIterator[openai.AsyncOpenAI]:
        """OpenAI's client, which asks for a project."""
        async with (
            self.http(project) as http,
            openai.AsyncOpenAI(
                api_key="unused", base_url="http://state/v1", http_client=http, max_retries=0
            ) as client,
        ):
            yield client

    async def stored_keys(self) -> list[str]:
        """Keys of all bytes that are stored."""
        found = [*await self.state.files.keys("files"), *await self.state.files.keys("uploads")]
        return sorted(each.key for each in found)


class Held:
    """A method whose calls wait until they are released."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method
        self._came = asyncio.Condition()
        self._released = asyncio.Event()
        self.calls = 0

    async def __call__(self, *args: Any, **options: Any) -> Any:
        """Call it, later."""
        async with self._came:
            self.calls += 1
            self._came.notify_all()
        await self._released.wait()
        return await self._method(*args, **options)

    async def wait_for(self, calls: int) -> None:
        """Wait until it has been called so often."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: self.calls >= calls)

    def release(self) -> None:
        """Let all calls go on, also later ones."""
        self._released.set()


def error_of(response: httpx2.Response) -> tuple[int, str | None, str | None]:
    """Status, code and param of an error, whose shape is checked."""
    error: Mapping[str, str | None] = json.loads(response.content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]
