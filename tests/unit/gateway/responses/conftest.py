"""Fixtures: a router with a State in the same process, and an engine for responses."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.store.database import Transaction
from gateway.store.response_tables import item_places, items, responses
from gateway.store.state_upkeep import StateUpkeep
from gateway.upstream.client import UpstreamClient
from tests.unit.conftest import StartEngine
from tests.unit.stateful import (
    DATABASE,
    RESPONSES,
    Clock,
    InProcessState,
    Json,
    ResponsesEngine,
    in_process_state,
)
from tests.unit.surface import CHAT, Surface


@dataclass
class StatefulGateway:
    """A router, its State, its engine and a client."""

    surface: Surface
    state: InProcessState
    engine: ResponsesEngine
    client: httpx.AsyncClient
    clock: Clock

    async def respond(self, **fields: object) -> Json:
        """Have a response made that succeeds."""
        found = await self.client.post(RESPONSES, json={"model": "m", **fields})
        assert found.status_code == 200, found.text
        answer: Json = found.json()
        return answer

    async def upkeep(self) -> None:
        """Have State end what has expired."""
        await StateUpkeep(self.state.state).expire()

    async def rows(self) -> dict[str, int]:
        """How many rows there are of responses and their items."""

        def count(connection: Transaction) -> dict[str, int]:
            return {
                table.name: len(connection.execute(table.select()).all())
                for table in (responses, items, item_places)
            }

        return await self.state.state.read(count)

    async def get(self, path: str) -> Json:
        """Show what is there."""
        found = await self.client.get(path)
        assert found.status_code == 200, found.text
        answer: Json = found.json()
        return answer


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and no rows: to make them takes longer than a test."""
    folder = tmp_path_factory.mktemp("state")

    async def make() -> None:
        async with in_process_state(folder):
            pass

    asyncio.run(make())
    return folder / DATABASE


@pytest.fixture
async def gateway(
    tmp_path: Path, made_database: Path, upstream: UpstreamClient, start_engine: StartEngine
) -> AsyncIterator[StatefulGateway]:
    """A gateway with one model, `m`."""
    clock, engine = Clock(), ResponsesEngine()
    shutil.copy(made_database, tmp_path / DATABASE)
    async with in_process_state(tmp_path, clock) as state:
        surface = Surface(upstream, state=state)
        surface.add("m", await start_engine(engine), routes=(CHAT, RESPONSES))
        async with surface.client() as client:
            yield StatefulGateway(surface, state, engine, client, clock)
        await end_background(surface)


async def end_background(surface: Surface) -> None:
    """Have the router give up its responses in the background, as it does in its end."""
    if surface.router.kept_answers is not None:
        await surface.router.kept_answers.close()
