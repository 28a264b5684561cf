"""Traces as load: equal ids give equal text, and requests come at their times."""

import argparse
import json
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from loadtests.texts import BYTES_PER_TOKEN
from loadtests.users.cards import Unusable
from loadtests.users.load import Found, Load
from loadtests.users.options import Options
from loadtests.workloads.replay import Replay
from loadtests.workloads.sizes import Sizes

LINES = [
    {"timestamp": 1000, "input_length": 1100, "output_length": 40, "hash_ids": [7, 8, 1]},
    {"timestamp": 3000, "input_length": 1300, "output_length": 80, "hash_ids": [7, 8, 2]},
    {"timestamp": 9000, "input_length": 1024, "output_length": 10, "hash_ids": [7, 9]},
]
BLOCK = 512


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace of three requests that share their first block, two of them the second."""
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def contents(path: Path, sizes: Sizes, seed: str = "seed") -> list[str]:
    """The prompts."""
    replay = Replay.read(path, 1.0, sizes, seed)
    return [turn.messages[0].content for _, turn in replay.timed()]


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equal_ids_give_equal_text(trace: Path, scale: float) -> None:
    """As many whole blocks are shared as ids are, whatever the scale."""
    size = round(BLOCK * scale) * BYTES_PER_TOKEN
    first, second, third = contents(trace, Sizes(scale=scale))

    assert first[: 2 * size] == second[: 2 * size]
    assert first[2 * size :][:12] != second[2 * size :][:12]
    assert third[:size] == first[:size]
    assert third[size:][:40] != first[size:][:40]


def test_a_seed_has_a_text_of_its_own(trace: Path) -> None:
    """The same again with the same; with another, no cache of an earlier test helps."""
    short = {"timestamp": 9000, "input_length": 100, "output_length": 10, "hash_ids": [3]}
    trace.write_text(trace.read_text() + json.dumps(short))
    ours, again, theirs = (contents(trace, Sizes(), seed) for seed in ("a", "a", "b"))

    assert ours == again
    assert [len(content) for content in ours] == [len(content) for content in theirs]
    cached = 64  # bytes: a block of the caches has 16 tokens
    assert not {content[:cached] for content in ours} & {content[:cached] for content in theirs}
    size = BLOCK * BYTES_PER_TOKEN
    assert theirs[0][: 2 * size] == theirs[1][: 2 * size]


def test_prompts_and_answers_are_as_long_as_the_trace_says(trace: Path) -> None:
    """In tokens of four bytes, scaled if wanted."""
    whole, half = (Replay.read(trace, 1.0, Sizes(scale=scale), "seed") for scale in (1, 0.5))

    assert [turn.prompt_tokens for _, turn in whole.timed()] == [1100, 1300, 1024]
    assert [turn.answer_tokens for _, turn in whole.timed()] == [40, 80, 10]
    assert [turn.prompt_tokens for _, turn in half.timed()] == [550, 650, 512]
    assert [turn.answer_tokens for _, turn in half.timed()] == [20, 40, 5]


def test_what_is_too_long_is_cut_at_its_end(trace: Path) -> None:
    """What is shared stays shared."""
    cut = contents(trace, Sizes(longest_prompt_tokens=600))

    assert [len(content) for content in cut] == [600 * BYTES_PER_TOKEN] * 3
    assert cut == [content[: 600 * BYTES_PER_TOKEN] for content in contents(trace, Sizes())]


@pytest.mark.parametrize(("speed", "times_s"), [(1.0, [0, 2, 8]), (2.0, [0, 1, 4])])
def test_requests_come_at_their_times(trace: Path, speed: float, times_s: list[float]) -> None:
    """Seconds since the first, in real or scaled time."""
    assert [at_s for at_s, _ in Replay.read(trace, speed, Sizes(), "seed").timed()] == times_s


def test_a_wrong_trace_is_named(trace: Path) -> None:
    """With its line, or by the option that is missing."""
    trace.write_text("{}\n")
    with pytest.raises(ConfigError, match=r"trace.jsonl:1: "):
        Replay.read(trace, 1.0, Sizes(), "seed")

    found = Found(seed="1", models=["model"], context_tokens=None)
    with pytest.raises(Unusable, match="--trace FILE"):
        Load(options(trace=None), found)
    with pytest.raises(Unusable, match=r"trace.jsonl:1: "):
        Load(options(trace=trace), found)


@pytest.mark.parametrize(
    ("option", "parsed"),
    [
        ("--users", {"num_users": 0}),
        ("--run-time", {"run_time": 0}),
        ("--trace-speed", {"trace_speed": 0.0}),
        ("--trace-speed", {"trace_speed": float("inf")}),
        ("--scale", {"scale": -1.0}),
        ("--think-scale", {"think_scale": -0.1}),
        ("--max-prompt-tokens", {"max_prompt_tokens": -5}),
    ],
)
def test_what_makes_no_test_is_refused(option: str, parsed: dict[str, float]) -> None:
    """By the option's name, whether it comes from the command line or the page."""
    with pytest.raises(Unusable, match=f"{option} is "):
        Options.of(argparse.Namespace(**(vars(parsed_options()) | parsed)))


def options(trace: Path | None) -> Options:
    """The options of a replay."""
    parsed = vars(parsed_options()) | {"trace": str(trace or "")}
    return Options.of(argparse.Namespace(**parsed))


def parsed_options() -> argparse.Namespace:
    """What a replay's command line, or the page, says."""
    return argparse.Namespace(
        workload="trace",
        shape="steady",
        num_users=1,
        run_time=1,
        model="",
        seed="",
        scale=0.0,
        think_scale=1.0,
        max_prompt_tokens=0,
        trace="",
        trace_speed=1.0,
        api_key="",
        results="",
        plot="",
    )
