"""The live config: a wrong gateway config never takes the place of a good one."""

import logging
from pathlib import Path

import pytest

from gateway.config.auth import Auth
from gateway.errors.startup import ConfigError
from gateway.serving.live_config import LiveConfig, RejectedConfig
from tests.unit.projects import KEY as API_KEY
from tests.unit.projects import project, write_projects

KEY = "k" * 16
GOOD = {"aliases": {"x": "m"}, "max_body_mb": 2}
WRONG = {"aliases": {"x": "x"}, "max_body_mb": 3}
LINE = "gateway: aliases.x: resolves to itself: x -> x"


class MemoryStore:
    """A config store in memory."""

    def __init__(self) -> None:
        self.config: bytes | None = None

    async def keep(self, config: bytes) -> None:
        """Keep this config."""
        self.config = config

    async def recall(self) -> bytes | None:
        """The config that was kept last."""
        return self.config


def lines(rejected: RejectedConfig | None) -> tuple[str, ...]:
    """Problems of a config that was rejected, if one was."""
    return rejected.problems if rejected else ()


async def test_a_good_config_is_adopted() -> None:
    """Names, limits and access are those of the config, and operators can see it."""
    live_config = LiveConfig(MemoryStore(), {"KEY": KEY})
    await live_config.adopt({**GOOD, "admin_key": "env:KEY"})
    assert live_config.names.route("x", b"").models == ("m",)
    assert (live_config.config.max_body_mb, live_config.admin_key) == (2, KEY)
    report = live_config.report()
    assert report["refused"] is None
    assert report["config"] == {
        "aliases": {"x": "m"},
        "splits": {},
        "fallbacks": {},
        "max_body_mb": 2,
        "max_text_body_mb": 16,
        "max_bodies_mb": None,
        "rate_limits": {"count_tokens": "uncached", "on_unknown_spend": "allow"},
        "request_log": {
            "enabled": True,
            "folder": None,
            "max_file_mb": 100,
            "max_files": 5,
        },
        "auth": None,
        "cors": None,
        "open_on_loopback": False,
        "trusted_proxies": [],
    }


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (WRONG, LINE),
        ({"max_body_mb": 3, "admin_key": "env:NONE"}, "gateway: admin_key: "),
        (["max_body_mb"], "gateway: should be a mapping, found a list"),
        ({"aliases": {"x": object()}}, "gateway: aliases.x: should be text, found "),
    ],
)
async def test_a_wrong_config_leaves_the_previous_one_in_force(
    wrong: object, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it takes effect; its mistakes are logged and shown to operators."""
    store = MemoryStore()
    live_config = LiveConfig(store)
    await live_config.adopt(GOOD)
    kept, before = store.config, (live_config.config, live_config.names)
    with caplog.at_level(logging.ERROR):
        await live_config.adopt(wrong)
    assert (live_config.config, live_config.names) == before
    assert live_config.config.max_body_mb == 2
    assert store.config == kept
    assert lines(live_config.rejected)[0].startswith(line)
    assert line in caplog.text


async def test_a_good_config_clears_the_rejection() -> None:
    """Problems of an earlier config are no longer shown."""
    live_config = LiveConfig(MemoryStore())
    await live_config.adopt(GOOD)
    await live_config.adopt(WRONG)
    await live_config.adopt({})
    assert live_config.rejected is None
    assert live_config.names.route("x", b"").models == ("x",)


async def test_a_router_that_starts_with_a_wrong_config_restores_the_kept_one() -> None:
    """A router without a config of its own uses the one that another router has kept."""
    store = MemoryStore()
    live_config = LiveConfig(store)
    await LiveConfig(store).adopt(GOOD)
    await live_config.adopt(WRONG)
    assert live_config.names.route("x", b"").models == ("m",)
    assert lines(live_config.rejected) == (LINE,)


async def test_a_first_config_that_is_wrong_stops_the_start() -> None:
    """Where none was kept, the error reaches Serve, and `serve status` with it."""
    store = MemoryStore()
    live_config = LiveConfig(store)
    with pytest.raises(ConfigError, match="resolves to itself"):
        await live_config.adopt(WRONG)
    assert store.config is None
    assert live_config.rejected is None


async def test_an_unreadable_kept_config_is_ignored() -> None:
    """A kept config that this version rejects does not hide the mistakes of the new one."""
    store = MemoryStore()
    store.config = b'{"of_another_version": 1}'
    with pytest.raises(ConfigError, match="resolves to itself"):
        await LiveConfig(store).adopt(WRONG)


async def test_a_gateway_that_others_can_reach_needs_authentication(tmp_path: Path) -> None:
    """It does not start without `auth`, lets nobody in before, and keeps the one it has."""
    live_config = LiveConfig(MemoryStore(), needs_auth=True)
    assert live_config.config.is_authenticated
    with pytest.raises(ConfigError, match="gateway: auth: is missing, and the gateway can be"):
        await live_config.adopt({})
    path = write_projects(tmp_path / "projects.yaml", project("one", API_KEY))
    await live_config.adopt({"auth": {"projects": [path]}})
    assert [each.name for each in live_config.directory.projects.values()] == ["one"]
    await live_config.adopt({"max_body_mb": 3})
    assert live_config.config.is_authenticated
    assert live_config.config.max_body_mb == 32
    assert "auth: is missing" in live_config.problems[0]
    await live_config.adopt({"auth": "none"})
    assert live_config.config.auth == Auth(is_required=False)
    assert live_config.problems == ()


async def test_a_config_with_wrong_projects_changes_nothing(tmp_path: Path) -> None:
    """Neither the config nor the projects, and the first one keeps the gateway from starting."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    write_projects(good, project("one", API_KEY))
    write_projects(bad, {"name": "two", "keys": [{"hash": API_KEY}]})
    live_config = LiveConfig(MemoryStore(), {"PROJECTS": str(good)})
    with pytest.raises(ConfigError, match=f"{bad}:1: projects"):
        await live_config.adopt({"auth": {"projects": [str(bad)]}})
    await live_config.adopt({"auth": {"projects": ["env:PROJECTS"]}})
    await live_config.adopt({"auth": {"projects": [str(good), str(bad)]}, "max_body_mb": 3})
    assert [each.name for each in live_config.directory.projects.values()] == ["one"]
    assert live_config.config.max_body_mb == 32
    assert API_KEY not in "".join(live_config.problems)
    assert str(live_config.report()["config"]).count("env:PROJECTS") == 1
