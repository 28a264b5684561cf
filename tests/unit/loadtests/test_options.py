"""Options of locust tests, and the shapes of load that they choose."""

import argparse
from pathlib import Path

import pytest

from gateway.authentication.project_files import ReadFiles
from gateway.identity.api_key import key_hash
from loadtests.locust_users.models import NothingToTest
from loadtests.locust_users.options import (
    DEMO_TEAMS,
    SHAPES,
    checked,
    team_keys,
    trace_replay,
    users_at,
)
from loadtests.workloads.sizes import Sizes

RUN_TIME_S = 100.0
PEAK = 50
PARSED = {
    "num_users": None,
    "run_time": None,
    "scale": 0.0,
    "think_scale": 1.0,
    "max_prompt_tokens": 0,
    "trace_speed": 1.0,
}
"""Numbers of a command line, or of the web page's form."""


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
def test_a_number_that_makes_no_test_is_refused(option: str, parsed: dict[str, float]) -> None:
    """By the option's name, whether it comes from the command line or the web page."""
    with pytest.raises(NothingToTest, match=f"{option} is "):
        checked(argparse.Namespace(**PARSED | parsed))


def test_users_and_run_time_have_defaults() -> None:
    """Locust leaves them out where its configuration has none."""
    parsed = checked(argparse.Namespace(**PARSED))
    assert (parsed.num_users, parsed.run_time) == (8, 60)


def test_a_trace_has_to_be_named_and_well_formed(tmp_path: Path) -> None:
    """The reason is given before the test starts."""
    path = tmp_path / "trace.jsonl"
    path.write_text("{}\n")
    for name, reason in (("", "--trace FILE"), (str(path), r"trace.jsonl:1: ")):
        with pytest.raises(NothingToTest, match=reason):
            trace_replay(name, 1.0, Sizes(), "seed")


def test_demo_teams_have_the_keys_of_their_config() -> None:
    """So that the load test runs against configs/teams.yaml as it is."""
    projects = ReadFiles.read(["configs/projects/teams.yaml"]).directory
    ids = {key.hash: key.project for key in projects.keys}
    found = {name: ids[key_hash(key.encode())] for name, key in team_keys(DEMO_TEAMS).items()}
    assert found == {project.name: project.id for project in projects.projects}


@pytest.mark.parametrize("teams", ["", "assistant", "assistant=", "a=b,c"])
def test_teams_without_keys_are_refused(teams: str) -> None:
    """With the form that the option has."""
    with pytest.raises(NothingToTest, match="NAME=KEY"):
        team_keys(teams)


def users(shape: str) -> list[int]:
    """Users at each second of a test."""
    found = [users_at(shape, second, RUN_TIME_S, PEAK) for second in range(int(RUN_TIME_S))]
    return [count for count in found if count is not None]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_peak_and_an_end(shape: str) -> None:
    """At some time all users are there, always at least one, and none at the end."""
    counts = users(shape)

    assert len(counts) == RUN_TIME_S
    assert max(counts) == PEAK
    assert min(counts) >= 1
    assert users_at(shape, RUN_TIME_S, RUN_TIME_S, PEAK) is None
    assert users_at(shape, 0, RUN_TIME_S, 2) in {1, 2}


def test_steady_is_constant_and_a_ramp_rises_evenly() -> None:
    """The ramp stays at its peak for the last quarter."""
    ramp = users("ramp")

    assert set(users("steady")) == {PEAK}
    assert ramp == sorted(ramp)
    assert (ramp[0], ramp[37], set(ramp[75:])) == (1, 25, {PEAK})


def test_a_spike_is_sudden_and_a_day_is_busiest_at_noon() -> None:
    """Both have a fifth of the users at their beginning; a day is symmetric."""
    spike, day = users("spike"), users("diurnal")

    assert (spike[39:41], spike[59:61], set(spike)) == ([10, 50], [50, 10], {10, 50})
    assert (day[0], day[50]) == (10, PEAK)
    assert day[1:50] == day[:50:-1]
    assert day[:51] == sorted(day[:51])
