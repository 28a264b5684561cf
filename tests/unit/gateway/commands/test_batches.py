"""`gateway batches` lists and cancels the batches of a project."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from typer.testing import CliRunner, Result

from gateway.assembly import AssembledRouter
from gateway.config.state import StateConfig
from gateway.http.state.app import StateApp
from gateway.store.database import Database
from gateway.store.file_storage import FileStorage
from gateway.store.project_state import ProjectState
from tests.unit.batches import add_batch, jsonl, request_line
from tests.unit.command_line import app
from tests.unit.served import served

LINES = jsonl(map(request_line, range(3)))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Address of what answers for two batches of a gateway without projects."""
    opened: list[ProjectState] = []

    async def make() -> AssembledRouter:
        database = await Database.open(f"sqlite:///{tmp_path}/state.db")
        state = ProjectState(database, FileStorage(str(tmp_path / "files")), StateConfig())
        opened.append(state)
        for _ in range(2):
            await add_batch(state, LINES)
        return cast("AssembledRouter", SimpleNamespace(app=StateApp(state)))

    async def close() -> None:
        await opened[0].close()

    with served(make, close) as address:
        yield address


def _run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["batches", "--url", url, *arguments])


def test_batches_are_listed_and_cancelled(url: str) -> None:
    """As a table, or as the API has them."""
    shown = _run(url)
    found = json.loads(_run(url, "--json").output)
    cancelled = _run(url, "--cancel", found[0]["id"])
    again = json.loads(_run(url, "--json", "--limit", "1").output)

    assert shown.exit_code == cancelled.exit_code == 0
    assert all(each["id"] in shown.output for each in found)
    assert [each["status"] for each in found] == ["validating", "validating"]
    assert "cancelling" in cancelled.output
    assert [each["status"] for each in again] == ["cancelling"]


def test_a_batch_that_is_not_there_is_an_error(url: str) -> None:
    """With the API's reason."""
    result = _run(url, "--cancel", "batch_none")

    assert result.exit_code == 1
    assert "No such Batch object: batch_none" in result.output
