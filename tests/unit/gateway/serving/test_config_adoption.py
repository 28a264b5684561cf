"""Tests of config adoption: a wrong gateway config never takes the place of a sound one."""

import logging

import pytest

from gateway.errors import ConfigError
from gateway.serving.config_adoption import ConfigAdoption
from gateway.serving.live_config import LiveConfig, RejectedConfig

KEY = "k" * 16
SOUND = {"aliases": {"x": "m"}, "max_body_mb": 2}
WRONG = {"aliases": {"x": "x"}, "max_body_mb": 3}
LINE = "gateway: aliases.x: resolves to itself: x -> x"


class Drawer:
    """A keepsake in memory."""

    def __init__(self) -> None:
        self.config: bytes | None = None

    async def keep(self, config: bytes) -> None:
        """Remember this one."""
        self.config = config

    async def recall(self) -> bytes | None:
        """The one that was kept last."""
        return self.config


def lines(refusal: RejectedConfig | None) -> tuple[str, ...]:
    """What is wrong with a config that was refused, if one was."""
    return refusal.problems if refusal else ()


async def test_a_sound_config_comes_into_force() -> None:
    """Names, limits and access are those of the config, and operators can see it."""
    live_config = LiveConfig()
    await ConfigAdoption(live_config, Drawer(), {"KEY": KEY}).adopt(
        {**SOUND, "admin_key": "env:KEY"}
    )
    assert live_config.names.route("x", b"").models == ("m",)
    assert (live_config.limits.max_body_mb, live_config.access.admin_key) == (2, KEY)
    report = live_config.report()
    assert report["refused"] is None
    assert report["config"] == {
        "aliases": {"x": "m"},
        "splits": {},
        "fallbacks": {},
        "max_body_mb": 2,
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
async def test_a_wrong_config_leaves_the_one_before(
    wrong: object, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it takes effect; what is wrong is logged and shown to operators."""
    live_config, drawer = LiveConfig(), Drawer()
    adoption = ConfigAdoption(live_config, drawer, {})
    await adoption.adopt(SOUND)
    kept, before = drawer.config, (live_config.config, live_config.names)
    with caplog.at_level(logging.ERROR):
        await adoption.adopt(wrong)
    assert (live_config.config, live_config.names) == before
    assert live_config.limits.max_body_mb == 2
    assert drawer.config == kept
    assert lines(live_config.refusal)[0].startswith(line)
    assert line in caplog.text


async def test_a_sound_config_ends_the_refusal() -> None:
    """What was wrong with an earlier config is no longer shown."""
    live_config = LiveConfig()
    adoption = ConfigAdoption(live_config, Drawer(), {})
    await adoption.adopt(SOUND)
    await adoption.adopt(WRONG)
    await adoption.adopt({})
    assert live_config.refusal is None
    assert live_config.names.route("x", b"").models == ("x",)


async def test_a_router_that_starts_with_a_wrong_config_takes_the_one_before() -> None:
    """A router that has had no config of its own goes by the one that another one kept."""
    drawer, live_config = Drawer(), LiveConfig()
    await ConfigAdoption(LiveConfig(), drawer, {}).adopt(SOUND)
    await ConfigAdoption(live_config, drawer, {}).adopt(WRONG)
    assert live_config.names.route("x", b"").models == ("m",)
    assert lines(live_config.refusal) == (LINE,)


async def test_a_first_config_that_is_wrong_stops_the_start() -> None:
    """Where there is none to go back to, the error reaches Serve, and `serve status` with it."""
    live_config, drawer = LiveConfig(), Drawer()
    with pytest.raises(ConfigError, match="resolves to itself"):
        await ConfigAdoption(live_config, drawer, {}).adopt(WRONG)
    assert drawer.config is None
    assert live_config.refusal is None


async def test_an_unreadable_keepsake_is_no_config() -> None:
    """A kept config that this version refuses does not hide what is wrong with the new one."""
    drawer = Drawer()
    drawer.config = b'{"of_another_version": 1}'
    with pytest.raises(ConfigError, match="resolves to itself"):
        await ConfigAdoption(LiveConfig(), drawer, {}).adopt(WRONG)
