"""The parts of Accounts, joined."""

import asyncio
from pathlib import Path

import pytest

from gateway.accounts.keeper import LedgerKeeper
from gateway.config.accounts import AccountsConfig
from gateway.routing.fleet import Fleet
from gateway.store.changes import Actor
from gateway.store.database import Database
from gateway.store.organization import Organization
from gateway.store.projects import ProjectSettings, create_project
from tests.unit.recorder import KeptRecorder

PATIENCE_S = 20.0


async def test_routers_are_informed_while_the_database_is_read_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys go on working; the log says that nothing can be written."""
    url = f"sqlite:///{tmp_path / 'accounts.db'}"
    database = await Database.open(url)
    await Organization(database).change(
        Actor(id="a"), lambda change: create_project(change, "search", ProjectSettings())
    )
    await database.close()
    config = AccountsConfig.model_validate({"database": url, "prices": {"m": [{"input": 1}]}})
    read_only = await Database.open(f"sqlite:///file:{tmp_path / 'accounts.db'}?mode=ro&uri=true")

    keeper = LedgerKeeper(read_only, config, Fleet(), KeptRecorder())
    keeper.start()
    view = await keeper.follow("")

    assert view.directory is not None
    assert [project.name for project in view.directory.projects] == ["search"]
    async with asyncio.timeout(PATIENCE_S):
        while "prices cannot be written yet" not in caplog.text:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    await keeper.close()
