"""Projects that flood a model in the simulator, whatever router they come to."""

import json

import pytest
from typer.testing import CliRunner

from gateway.simulation.batching import EngineProfile
from gateway.simulation.projects import ProjectLoad, ProjectTotals, simulate_projects
from gateway.simulation.settings import SimulationSettings
from gateway.simulation.trace import BLOCK_TOKENS, Workload, trace_request
from tests.unit.command_line import app

SLOTS = 8
REPLICAS = 2
CLIENTS = 4 * SLOTS * REPLICAS
SECONDS = 120.0
WORKLOAD = Workload(
    "small",
    [
        trace_request(0.0, BLOCK_TOKENS + 100 + 7 * (i % 40), 30 + i % 31, [i % 24, 1000 + i])
        for i in range(600)
    ],
)


def flood(
    *loads: ProjectLoad, routers: int = 2, is_fair: bool = True, measured_from: float = 0.4
) -> ProjectTotals:
    """Flood a small fleet."""
    engine = EngineProfile(kv_blocks=400, block_size=BLOCK_TOKENS, max_running=SLOTS)
    settings = SimulationSettings(replicas=REPLICAS, engine=engine, routers=routers)
    return simulate_projects(
        WORKLOAD, loads, settings, SECONDS, is_fair=is_fair, measured_from=measured_from
    )


def load(name: str, weight: float, *routers: int, **fields: object) -> ProjectLoad:
    """A project whose clients are spread over these routers."""
    return ProjectLoad(name=name, weight=weight, clients=CLIENTS, routers=routers, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "loads",
    [
        (load("a", 4, 0), load("b", 1, 0)),
        (load("a", 4, 0, 1), load("b", 1, 0, 1)),
        (load("a", 4, 0), load("b", 1, 1)),
        (load("a", 4, 0, later_routers=[1]), load("b", 1, 1, later_routers=[0])),
    ],
    ids=["one router", "even", "skewed", "swapped"],
)
def test_projects_are_served_by_weight_whatever_router_they_come_to(
    loads: tuple[ProjectLoad, ProjectLoad],
) -> None:
    """4 to 1, give or take a tenth, and no engine idles for it."""
    fair, unfair = flood(*loads), flood(*loads, is_fair=False)
    assert 3.6 <= fair.work_s["a"] / fair.work_s["b"] <= 4.4
    assert fair.tokens_per_s >= 0.97 * unfair.tokens_per_s
    assert fair.hit_rate >= unfair.hit_rate - 0.02


def test_three_projects_share_by_weight_over_three_routers() -> None:
    """Each through a router of its own."""
    totals = flood(load("a", 2, 0), load("b", 1, 1), load("c", 1, 2), routers=3)
    assert totals.share("a") == pytest.approx(0.5, abs=0.04)
    assert totals.share("b") == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("router", [0, 1])
def test_a_project_that_returns_gets_its_share_and_no_more(router: int) -> None:
    """Half, beside another one that has flooded the model meanwhile."""
    totals = flood(load("a", 1, 0), load("b", 1, router, starts_at=0.5), measured_from=0.6)
    assert 0.45 <= totals.share("b") <= 0.55


def test_a_project_beside_a_small_one_may_use_the_rest() -> None:
    """Beside one with a single request at a time: all but the slot that is left to that one."""
    few = ProjectLoad(name="b", weight=1, clients=1, routers=[1])
    alone, unfair = flood(load("a", 1, 0), few), flood(load("a", 1, 0), few, is_fair=False)
    assert alone.tokens_per_s >= 0.97 * unfair.tokens_per_s * (SLOTS - 1) / SLOTS


def test_the_same_arguments_give_the_same_shares() -> None:
    """To the last digit: time is virtual."""
    one, other = (flood(load("a", 4, 0), load("b", 1, 1)) for _ in range(2))
    assert one.work_s == other.work_s


def test_the_command_compares_all_ways_to_come() -> None:
    """As JSON, with the figures that the table shows."""
    arguments = ["none", "--projects", "4:1", "--seconds", "20", "--replicas", "1"]
    result = CliRunner().invoke(app, ["simulate", *arguments, "--max-running", "4", "--json"])
    document = json.loads(result.stdout)
    assert (document["workload"], document["seconds"]) == ("none", 20)
    assert [each["ingress"] for each in document["ingress"]] == [
        "one router",
        "2 routers, even",
        "2 routers, skewed",
        "2 routers, swapped half-way",
        "one returns, one router",
        "one returns, skewed",
    ]
    first = document["ingress"][0]
    assert first["weights"] == [4, 1]
    assert sum(first["shares"]) == pytest.approx(1)
    assert {"ratio", "tokens_per_s", "hit_rate", "throughput"} < first.keys()
    table = CliRunner().invoke(app, ["simulate", *arguments, "--max-running", "4"]).stdout
    assert "2 routers, swapped half-way" in table


@pytest.mark.parametrize("projects", ["4", "4:0", "4:x", "", "1:-1", "1:inf"])
def test_wrong_weights_are_refused(projects: str) -> None:
    """By name of the option."""
    result = CliRunner().invoke(app, ["simulate", "none", "--projects", projects])
    assert result.exit_code == 1
    assert "--projects" in result.output
