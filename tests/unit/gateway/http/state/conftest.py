"""State over a database, and a folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config.state import StateConfig
from gateway.store.database import Database
from gateway.store.file_storage import FileStorage
from gateway.store.project_state import ProjectState
from tests.unit.databases import database, database_url, postgres
from tests.unit.gateway.http.state.stored import Clock, StateApi

__all__ = ["database", "database_url", "postgres"]


@asynccontextmanager
async def state_over(database: Database, folder: Path) -> AsyncIterator[StateApi]:
    """State, whose projects may have 3 MiB, in files of 2 MiB."""
    clock = Clock()
    config = StateConfig(max_file_mb=2, max_upload_mb=2, project_gb=3 / 1024)
    files = FileStorage(str(folder / "files"))
    yield StateApi(ProjectState(database, files, config, clock), clock)
    await files.close()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[StateApi]:
    """State over SQLite."""
    opened = await Database.open(f"sqlite:///{tmp_path}/state.db")
    async with state_over(opened, tmp_path) as found:
        yield found
    await opened.close()


@pytest.fixture
async def each_api(database: Database, tmp_path: Path) -> AsyncIterator[StateApi]:
    """State over a database of each kind in turn."""
    async with state_over(database, tmp_path) as found:
        yield found
