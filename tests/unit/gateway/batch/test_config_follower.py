"""The process of batches goes by a config only if it can use it."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.batch.config_follower import ConfigFollower
from gateway.serving.live_config import LiveConfig
from tests.unit.projects import KEY, project, write_projects


async def test_a_config_that_cannot_be_used_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing runs until then: its projects would look as if they had gone."""
    path = tmp_path / "projects.yaml"
    kept = json.dumps({"auth": {"projects": [str(path)]}}).encode()

    async def recall() -> bytes:
        return kept

    live = LiveConfig(needs_auth=True)
    follower = ConfigFollower(recall, live)
    await follower.follow()
    await follower.follow()
    before = dict(live.directory.projects)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await follower.wait_for_first()

    write_projects(path, project("search", KEY, id="search"))
    await follower.follow()

    await follower.wait_for_first()
    assert (before, list(live.directory.projects)) == ({}, ["search"])
    assert caplog.text.count("waits for a gateway config that it can use") == 1
