"""The cache of adapters: which stay loaded, which requests wait, and handling of broken ones."""

import asyncio
import json
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.adapters import RESERVATION_S, RETRY_S, AdapterCache
from deployments.engines.weights import USUAL_RANK, AdapterFiles
from gateway.errors.request import AdapterBroken
from gateway.telemetry.update import AdapterState
from tests.unit.conftest import Clock


class FakeLoader:
    """Loads at once, or on demand the adapters in `held`; fetches those in `remote` likewise."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.inside: set[str] = set()
        self.most_inside = 0
        self.broken: set[str] = set()
        self.sticking: set[str] = set()
        self.remote: dict[str, asyncio.Event] = {}
        self.held: dict[str, asyncio.Event] = {}

    async def fetch(self, name: str) -> None:
        """Wait for what is not there."""
        if remote := self.remote.get(name):
            await remote.wait()

    async def load(self, name: str) -> None:
        """Note it.

        Raises:
            AdapterBroken: it is to be.
        """
        if held := self.held.get(name):
            await held.wait()
        self.calls.append(f"+{name}")
        if name in self.broken:
            raise AdapterBroken(name, "it is bent")
        assert name not in self.inside
        self.inside.add(name)
        self.most_inside = max(self.most_inside, len(self.inside))

    async def unload(self, name: str) -> None:
        """Note it, and fail if that is to be."""
        self.calls.append(f"-{name}")
        self.inside.remove(name)
        if name in self.sticking:
            raise RuntimeError("a worker does not answer")


LONG_S = 1000.0
"""Patience that never ends here."""


class Scene:
    """A cache of the adapters `a` to `d`, and its engine's last report of them."""

    def __init__(self, most: int, clock: Callable[[], float], patience_s: float = LONG_S) -> None:
        self.loader = FakeLoader()
        self.told = AdapterState()
        self.adapters = AdapterCache("abcd", most, self.loader, self._hear, clock, patience_s)

    def _hear(self, state: AdapterState) -> None:
        self.told = state

    def start(self, name: str) -> "Use":
        """Begin to use an adapter."""
        return Use(self.adapters, name)


class Use:
    """A request that uses an adapter until it is ended."""

    def __init__(self, adapters: AdapterCache, name: str) -> None:
        self._end = asyncio.Event()
        self.has_it = False
        self.task = asyncio.create_task(self._use(adapters, name))

    async def _use(self, adapters: AdapterCache, name: str) -> None:
        async with adapters.using(name):
            self.has_it = True
            await self._end.wait()

    async def end(self) -> None:
        """Use it no more."""
        self._end.set()
        await self.task


async def settle() -> None:
    """Let all tasks run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_as_many_as_fit_are_loaded_at_first(clock: Clock) -> None:
    """In their order; a broken one is skipped."""
    scene = Scene(2, clock)
    scene.loader.broken = {"a"}

    await scene.adapters.load_first()

    assert scene.told == AdapterState(loaded=["b", "c"], broken={"a": "it is bent"}, max_loaded=2)


async def test_the_least_recently_used_adapter_is_evicted(clock: Clock) -> None:
    """Adapters that were used since then stay."""
    scene = Scene(2, clock)
    await scene.adapters.load_first()
    await scene.adapters.prepare("a")

    await scene.adapters.prepare("c")

    assert scene.told.loaded == ["a", "c"]
    assert scene.loader.inside == {"a", "c"}
    assert scene.loader.calls == ["+a", "+b", "+c", "-b"]


async def test_a_loaded_adapter_is_not_loaded_again(clock: Clock) -> None:
    """However many requests use it, also while it is being loaded."""
    scene = Scene(1, clock)
    scene.loader.held["a"] = asyncio.Event()
    uses = [scene.start("a") for _ in range(3)]
    await settle()
    assert not any(use.has_it for use in uses)

    scene.loader.held["a"].set()
    await settle()

    assert all(use.has_it for use in uses)
    assert scene.loader.calls == ["+a"]
    for use in uses:
        await use.end()


async def test_a_load_shows_while_it_lasts(clock: Clock) -> None:
    """The engine may do nothing else meanwhile, and does not hang for that."""
    scene = Scene(1, clock)
    held = scene.loader.held["a"] = asyncio.Event()
    use = scene.start("a")
    states = []
    for _ in range(5):
        await asyncio.sleep(0)
    states.append(scene.adapters.is_loading)
    held.set()
    while not use.has_it:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    states.append(scene.adapters.is_loading)
    use.task.cancel()
    await asyncio.gather(use.task, return_exceptions=True)
    await scene.adapters.stop()

    assert states == [True, False]


async def test_an_adapter_in_use_is_not_evicted(clock: Clock) -> None:
    """An idle one is evicted first; without one, one more is loaded, and the next one waits."""
    scene = Scene(2, clock)
    first, second = scene.start("a"), scene.start("b")
    await settle()
    await second.end()
    third = scene.start("c")
    await settle()
    assert scene.loader.inside == {"a", "c"}

    fourth, fifth = scene.start("d"), scene.start("b")
    await settle()
    assert (fourth.has_it, fifth.has_it) == (True, False)
    assert scene.told.loaded == ["a", "c", "d"]
    await first.end()
    await settle()

    assert fifth.has_it
    assert scene.told.loaded == ["c", "d", "b"]
    assert scene.loader.most_inside == 3
    for use in (third, fourth, fifth):
        await use.end()


async def test_the_first_idle_adapter_is_evicted(clock: Clock) -> None:
    """An adapter in long use delays no load, even if it is the least recently used."""
    scene = Scene(2, clock)
    long, short, third = scene.start("a"), scene.start("b"), scene.start("c")
    await settle()
    newcomer = scene.start("d")
    await settle()
    had_it_before = newcomer.has_it

    await short.end()
    await settle()

    assert (had_it_before, newcomer.has_it) == (False, True)
    assert scene.loader.inside == {"a", "c", "d"}
    for use in (long, third, newcomer):
        await use.end()


async def test_without_an_idle_one_the_least_recently_used_is_closed(clock: Clock) -> None:
    """After the delay: requests for it then wait until it has been loaded again."""
    scene = Scene(1, clock, patience_s=0)
    first, second = scene.start("a"), scene.start("b")
    await settle()
    third = scene.start("c")
    await settle()
    again = scene.start("a")
    await settle()
    assert (second.has_it, third.has_it, again.has_it) == (True, False, False)
    assert scene.told.loaded == ["b"]

    await first.end()
    await settle()
    assert (third.has_it, again.has_it) == (True, False)
    assert scene.loader.calls == ["+a", "+b", "-a", "+c"]
    await second.end()
    await settle()

    assert again.has_it
    await third.end()
    await again.end()


async def test_an_adapter_that_is_not_evicted_opens_again(clock: Clock) -> None:
    """Another one became idle first: waiting requests use it without a load."""
    scene = Scene(1, clock, patience_s=0)
    first, second = scene.start("a"), scene.start("b")
    await settle()
    third = scene.start("c")
    await settle()
    again = scene.start("a")
    await settle()
    had_it_before = again.has_it

    await second.end()
    await settle()

    assert third.has_it
    assert (had_it_before, again.has_it) == (False, True)
    assert scene.loader.calls == ["+a", "+b", "-b", "+c"]
    assert sorted(scene.told.loaded) == ["a", "c"]
    for use in (first, third, again):
        await use.end()


async def test_a_prepared_adapter_is_kept_for_a_moment(clock: Clock) -> None:
    """Its request uses it; if none comes, it is evicted like any other."""
    scene = Scene(1, clock)
    first = scene.start("a")
    await settle()
    await scene.adapters.prepare("b")
    other = scene.start("c")
    await settle()
    assert scene.loader.inside == {"a", "b"}

    clock.now_s += RESERVATION_S
    user = scene.start("b")
    await settle()
    assert user.has_it
    await user.end()
    await settle()

    assert other.has_it
    assert scene.loader.calls == ["+a", "+b", "-b", "+c"]
    await first.end()
    await other.end()


async def test_files_are_fetched_while_others_are_loaded(clock: Clock) -> None:
    """A slow hub delays no other adapter."""
    scene = Scene(2, clock)
    scene.loader.remote["a"] = asyncio.Event()
    far, near = scene.start("a"), scene.start("b")
    await settle()
    assert (far.has_it, near.has_it) == (False, True)

    scene.loader.remote["a"].set()
    await settle()

    assert far.has_it
    await far.end()
    await near.end()


async def test_a_start_waits_for_adapters_within_a_limit(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters that take longer are loaded with their first request."""
    monkeypatch.setattr("deployments.engines.adapters.START_TIMEOUT_S", 0.01)
    scene = Scene(2, clock)
    scene.loader.remote["b"] = asyncio.Event()

    await scene.adapters.load_first()
    assert scene.told.loaded == ["a"]
    scene.loader.remote["b"].set()
    await scene.adapters.prepare("b")

    assert scene.told.loaded == ["a", "b"]


async def test_a_failed_unload_fails_no_request(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the request that needed the room gets its adapter."""
    scene = Scene(1, clock)
    scene.loader.sticking = {"a"}
    await scene.adapters.prepare("a")
    clock.now_s += RESERVATION_S

    await scene.adapters.prepare("b")

    assert scene.told.loaded == ["b"]
    assert "adapter a could not be unloaded" in caplog.text


async def test_a_cancelled_request_does_not_cancel_the_load(clock: Clock) -> None:
    """Other waiting requests get the adapter, and the cancelled one does not count as a user."""
    scene = Scene(1, clock)
    scene.loader.held["a"] = asyncio.Event()
    leaver, other = scene.start("a"), scene.start("a")
    await settle()
    leaver.task.cancel()
    await settle()

    scene.loader.held["a"].set()
    await settle()
    assert other.has_it
    await other.end()
    await scene.adapters.prepare("b")

    assert scene.loader.inside == {"b"}


async def test_an_adapter_without_requests_is_not_loaded(clock: Clock) -> None:
    """All its requests left while other adapters were being loaded."""
    scene = Scene(1, clock)
    scene.loader.held["a"] = asyncio.Event()
    first, leaver = scene.start("a"), scene.start("b")
    await settle()
    leaver.task.cancel()
    await settle()
    scene.loader.held["a"].set()
    await settle()

    assert scene.loader.calls == ["+a"]
    await first.end()
    await scene.adapters.prepare("b")
    assert scene.loader.calls == ["+a", "+b", "-a"]


async def test_a_broken_adapter_affects_no_other(clock: Clock) -> None:
    """Its requests get the reason, without a new attempt; loaded adapters stay."""
    scene = Scene(1, clock)
    scene.loader.broken = {"b"}
    await scene.adapters.prepare("a")

    for _ in range(2):
        with pytest.raises(AdapterBroken, match="`b` cannot be loaded: it is bent"):
            await scene.adapters.prepare("b")

    assert scene.loader.calls == ["+a", "+b"]
    assert scene.told.loaded == ["a"]
    assert scene.told.broken == {"b": "it is bent"}


async def test_a_broken_adapter_is_retried_later(clock: Clock) -> None:
    """After a while, as its files may have arrived."""
    scene = Scene(1, clock)
    scene.loader.broken = {"b"}
    with pytest.raises(AdapterBroken):
        await scene.adapters.prepare("b")
    scene.loader.broken = set()

    clock.now_s += RETRY_S
    await scene.adapters.prepare("b")

    assert scene.told.loaded == ["b"]
    assert scene.told.broken == {}


async def test_the_duration_of_a_load_is_reported(clock: Clock) -> None:
    """Routers weigh it against waiting."""
    scene = Scene(2, clock)
    scene.loader.held["a"] = asyncio.Event()
    use = scene.start("a")
    await settle()

    clock.now_s += 4
    scene.loader.held["a"].set()
    await use.end()

    assert scene.told.load_s == 4


async def test_a_stop_cancels_loads(clock: Clock) -> None:
    """No request waits for them any longer."""
    scene = Scene(1, clock)
    scene.loader.held["a"] = asyncio.Event()
    use = scene.start("a")
    await settle()

    await scene.adapters.stop()
    await asyncio.wait([use.task])

    assert use.task.cancelled()


class Step(Enum):
    """Action of a request on an adapter."""

    START = "start"
    END = "end"
    LEAVE = "leave"


@settings(deadline=None)
@given(
    most=st.integers(1, 3),
    patience_s=st.sampled_from([0.0, LONG_S]),
    steps=st.lists(st.tuples(st.sampled_from(Step), st.sampled_from("abcd"))),
)
def test_invariants_hold_for_any_sequence_of_requests(
    most: int, patience_s: float, steps: list[tuple[Step, str]]
) -> None:
    """Adapters in use are loaded, at most one too many, and every request gets its own."""
    asyncio.run(_play(Scene(most, Clock(), patience_s), most, steps))


async def _play(scene: Scene, most: int, steps: list[tuple[Step, str]]) -> None:
    users: list[tuple[str, Use]] = []
    for step, name in steps:
        if step is Step.START:
            users.append((name, scene.start(name)))
        elif found := next((user for user in users if user[0] == name), None):
            users.remove(found)
            if step is Step.END and found[1].has_it:
                await found[1].end()
            else:
                found[1].task.cancel()
        await settle()
        assert {name for name, use in users if use.has_it} <= scene.loader.inside
        assert set(scene.told.loaded) <= scene.loader.inside
    for _ in range(len(users)):
        ready = next(user for user in users if user[1].has_it)
        users.remove(ready)
        await ready[1].end()
        await settle()

    assert scene.loader.most_inside <= most + 1


def test_an_adapter_s_rank_is_its_largest(tmp_path: Path) -> None:
    """If layers have different ranks, it is the largest."""
    config = {"r": 8, "rank_pattern": {"q_proj": 32}, "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))

    assert AdapterFiles("a", str(tmp_path)).rank(tmp_path) == 32


@pytest.mark.parametrize("text", [None, "{}", '{"r": "many"}', "no JSON"])
def test_files_without_a_lora_configuration_are_a_broken_adapter(
    text: str | None, tmp_path: Path
) -> None:
    """The reason says so, and names no path."""
    if text is not None:
        (tmp_path / "adapter_config.json").write_text(text)

    with pytest.raises(AdapterBroken) as caught:
        AdapterFiles("a", str(tmp_path)).rank(tmp_path)

    assert caught.value.reason == "it has no adapter_config.json of a LoRA adapter"


def test_an_adapter_of_the_hub_is_downloaded(tmp_path: Path) -> None:
    """A source that is not a path is a name on the hub."""
    asked: list[str] = []

    def download(source: str) -> str:
        asked.append(source)
        return str(tmp_path)

    assert AdapterFiles("a", "owner/adapter", (tmp_path,)).folder(download) == tmp_path
    assert asked == ["owner/adapter"]


async def test_a_hub_adapter_s_rank_needs_only_its_configuration(tmp_path: Path) -> None:
    """Nothing else is downloaded."""
    config = tmp_path / "adapter_config.json"
    config.write_text('{"r": 64}')

    assert await AdapterFiles("a", "owner/adapter").first_rank(lambda _: str(config), 5) == 64


async def test_a_local_adapter_s_rank_is_read(tmp_path: Path) -> None:
    """Without the hub; an adapter that does not exist has rank 0."""
    (tmp_path / "adapter_config.json").write_text('{"r": 64}')

    assert await AdapterFiles("a", str(tmp_path)).first_rank(_fail, 5) == 64
    assert await AdapterFiles("a", "./none", (tmp_path,)).first_rank(_fail, 5) == 0


async def test_an_unknown_rank_is_assumed() -> None:
    """The usual one, if the hub fails or does not answer."""
    silence = threading.Event()

    def wait(source: str) -> str:
        silence.wait()
        return source

    failed = await AdapterFiles("a", "owner/adapter").first_rank(_fail, 5)
    silent = await AdapterFiles("a", "owner/adapter").first_rank(wait, 0.01)
    silence.set()

    assert failed == silent == USUAL_RANK


def _fail(source: str) -> str:
    raise OSError(f"no network for {source}")


def _shrug(source: str) -> str:
    return source  # as vLLM does after some errors


@pytest.mark.parametrize("download", [_fail, _shrug])
def test_a_failed_download_is_a_broken_adapter(download: Callable[[str], str]) -> None:
    """The adapter is broken, and nothing else."""
    with pytest.raises(AdapterBroken, match="could not be downloaded"):
        AdapterFiles("a", "owner/adapter").folder(download)


def test_a_missing_path_is_a_broken_adapter(tmp_path: Path) -> None:
    """Clients learn no path."""
    with pytest.raises(AdapterBroken) as caught:
        AdapterFiles("a", "./none", (tmp_path,)).folder(_fail)

    assert caught.value.reason == "its files do not exist"
