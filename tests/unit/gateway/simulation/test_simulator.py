"""Simulation of routing policies on workloads, with engines in virtual time."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from gateway.config.policy_names import policy_names
from gateway.errors.startup import ConfigError
from gateway.simulation.batching import EngineProfile
from gateway.simulation.results import PolicyResult, infinite_cache_hit_rate, percentile
from gateway.simulation.settings import SimulationSettings
from gateway.simulation.simulator import simulate
from gateway.simulation.timeline import Timeline
from gateway.simulation.trace import BLOCK_TOKENS, TraceRequest, Workload, trace_request
from gateway.simulation.virtual_engine import SimulatedOutcome
from gateway.simulation.workloads import generate_workload
from tests.unit.command_line import app

ROOT = Path(__file__).parents[4]
COUNT = 1200


def settings(
    replicas: int = 8, blocks: int = 600, routers: int = 1, *, is_priority: bool = True
) -> SimulationSettings:
    """Make settings with the default profile of engines."""
    engine = EngineProfile(kv_blocks=blocks, block_size=BLOCK_TOKENS)
    return SimulationSettings(
        replicas=replicas, engine=engine, routers=routers, is_priority=is_priority
    )


def result(workload: Workload, policy: str, settings: SimulationSettings) -> PolicyResult:
    """Simulate one policy."""
    return PolicyResult.of(policy, simulate(workload, policy, settings), settings.replicas)


def workload(*requests: TraceRequest) -> Workload:
    """Make a workload of these requests."""
    return Workload("w", requests)


def test_one_request_takes_as_long_as_its_steps() -> None:
    """Three steps compute 10,000 tokens, nine more the rest of the answer."""
    (outcome,) = simulate(
        workload(trace_request(1.0, 10_000, 10, range(20))), "marginal", settings()
    )
    assert outcome.first_token_s == pytest.approx(1.0 + 3 * 0.012 + 10_000 * 0.0001)
    assert outcome.finished_s == pytest.approx(outcome.first_token_s + 9 * (0.012 + 0.0002))
    assert outcome.cached_tokens == 0


def test_the_second_of_two_equal_prompts_finds_cached_blocks() -> None:
    """It goes to the same replica and computes only its last block."""
    first = trace_request(0.0, 5000, 5, range(10))
    second = trace_request(9.0, 5000, 5, range(10))
    outcomes = simulate(workload(first, second), "marginal", settings())
    assert outcomes[0].replica == outcomes[1].replica
    assert outcomes[1].cached_tokens == 9 * BLOCK_TOKENS


def test_a_burst_is_spread_although_no_telemetry_has_arrived() -> None:
    """A router counts the requests that it has just sent."""
    burst = [trace_request(0.0, 3000, 5, [6 * i + j for j in range(6)]) for i in range(8)]
    outcomes = simulate(workload(*burst), "marginal", settings())
    assert sorted(o.replica for o in outcomes) == list(range(8))


def test_every_request_has_one_outcome_in_order() -> None:
    """Each outcome belongs to its request and follows the arrival."""
    requests = generate_workload("agents", 400)
    outcomes = simulate(requests, "least-pending", settings(replicas=2, routers=3))
    assert [o.request for o in outcomes] == list(requests.requests)
    assert all(o.request.arrived_s < o.first_token_s <= o.finished_s for o in outcomes)


def test_the_same_arguments_give_the_same_figures() -> None:
    """They depend neither on the time of day nor on chance."""
    first, second = (
        result(generate_workload("tenants", 300), "marginal", settings()) for _ in range(2)
    )
    assert first == second


def test_marginal_sends_tenants_where_their_prefixes_are() -> None:
    """Its hit rate is close to an infinite cache, and far above a policy that sees only load."""
    tenants = generate_workload("tenants", COUNT)
    marginal = result(tenants, "marginal", settings())
    least_pending = result(tenants, "least-pending", settings())
    assert marginal.hit_rate > 0.98 * infinite_cache_hit_rate(tenants)
    assert marginal.hit_rate > 2 * least_pending.hit_rate
    assert marginal.e2e_mean_s < 0.5 * least_pending.e2e_mean_s


def test_marginal_spreads_a_hot_prefix() -> None:
    """Soon all replicas have it, so that affinity overloads none."""
    hot = result(generate_workload("hot", COUNT), "marginal", settings())
    assert hot.imbalance < 1.1
    assert hot.hit_rate > 0.9
    assert hot.ttft_p99_s < 1.0


def test_four_routers_route_as_well_as_one() -> None:
    """Telemetry shows each router what the others did."""
    agents = generate_workload("agents", COUNT)
    one, four = (result(agents, "marginal", settings(routers=n)) for n in (1, 4))
    assert four.hit_rate > one.hit_rate - 0.02


def test_priorities_let_short_prompts_overtake_long_ones() -> None:
    """The waiting request with the least to compute starts first."""
    long = [trace_request(0.0, 20_000, 2, [100 * i + j for j in range(40)]) for i in range(5)]
    short = trace_request(0.1, 200, 2, [])
    ordered, fifo = (
        simulate(workload(*long, short), "marginal", settings(1, is_priority=is_priority))
        for is_priority in (True, False)
    )
    assert ordered[-1].first_token_s < ordered[-2].first_token_s
    assert fifo[-1].first_token_s >= fifo[-2].first_token_s


def test_a_request_that_never_fits_is_rejected_at_the_start() -> None:
    """The error names the request, its size and the size of the cache."""
    fits, larger = trace_request(0, 4000, 96, range(8)), trace_request(0, 4000, 97, range(8))
    assert simulate(workload(fits), "marginal", settings(blocks=8))
    with pytest.raises(ConfigError, match=r"request 2 takes 4000 prompt and 97 answer .* 4096"):
        simulate(workload(fits, larger), "marginal", settings(blocks=8))


def brute_force_hit_rate(requests: Sequence[TraceRequest]) -> float:
    """Find the longest shared beginning for each prompt by comparing it with all earlier ones."""
    cached = 0
    for position, request in enumerate(requests):
        best = 0
        for earlier in requests[:position]:
            shared = 0
            for mine, theirs in zip(request.prompt.keys, earlier.prompt.keys, strict=False):
                if mine != theirs:
                    break
                shared += BLOCK_TOKENS
            best = max(
                best, min(shared, (request.prompt_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS)
            )
        cached += best
    return cached / sum(request.prompt_tokens for request in requests)


prompts = st.lists(
    st.tuples(st.lists(st.integers(0, 2), max_size=5), st.integers(0, BLOCK_TOKENS - 1)).filter(
        lambda prompt: prompt[0] or prompt[1]
    ),
    min_size=1,
    max_size=12,
)


@given(prompts)
def test_infinite_cache_hit_rate_equals_comparing_all_prompts(
    prompts: list[tuple[list[int], int]],
) -> None:
    """One pass with a set gives the same as comparing all pairs of prompts."""
    requests = [trace_request(0, len(ids) * BLOCK_TOKENS + rest, 1, ids) for ids, rest in prompts]
    assert infinite_cache_hit_rate(workload(*requests)) == brute_force_hit_rate(requests)


def test_figures_are_computed_from_outcomes() -> None:
    """The figures of two requests are easily checked."""
    outcomes = [
        SimulatedOutcome(
            trace_request(0.0, 1000, 11, [1, 2]), 0, 512, first_token_s=1.0, finished_s=3.0
        ),
        SimulatedOutcome(
            trace_request(5.0, 1000, 1, [1, 2]), 1, 0, first_token_s=8.0, finished_s=8.0
        ),
    ]
    figures = PolicyResult.of("p", outcomes, replicas=4)
    assert figures.hit_rate == 0.256
    assert (figures.ttft_mean_s, figures.ttft_p50_s) == (2.0, 2.0)
    assert figures.ttft_p90_s == pytest.approx(2.8)
    assert figures.tpot_p90_s == pytest.approx(0.2)
    assert figures.e2e_mean_s == 3.0
    assert figures.imbalance == pytest.approx(1001 / (1500 / 4))


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0), ([7], 0.99, 7), ([1, 2, 3], 0.5, 2), ([0, 10], 0.9, 9), ([0, 10], 1, 10)],
)
def test_percentiles_are_interpolated(values: list[float], share: float, expected: float) -> None:
    """The value lies between the two nearest ones, in proportion."""
    assert percentile(values, share) == pytest.approx(expected)


def test_events_run_by_time_and_then_in_the_order_scheduled() -> None:
    """An event may schedule others."""
    timeline, seen = Timeline(), list[tuple[str, float]]()
    timeline.call_at(2, lambda: seen.append(("c", timeline())))
    timeline.call_at(1, lambda: timeline.call_at(2, lambda: seen.append(("d", timeline()))))
    timeline.call_at(1, lambda: seen.append(("b", timeline())))
    timeline.run()
    assert seen == [("b", 1), ("c", 2), ("d", 2)]


def run(*arguments: str) -> Result:
    """Run `gateway simulate` with these arguments."""
    return CliRunner().invoke(app, ["simulate", *arguments])


def test_the_command_prints_a_row_for_each_policy() -> None:
    """It prints the hit rate of an infinite cache, too."""
    result = run("hot", "--limit", "50")
    assert result.exit_code == 0
    for name in policy_names():
        assert f"│ {name} " in result.stdout
    assert "hot: 50 requests" in result.stdout
    assert "one infinite cache" in result.stdout


def test_the_command_prints_json(tmp_path: Path) -> None:
    """It has the figures of the policies in the requested order."""
    trace = tmp_path / "mine.jsonl"
    line = {"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}
    trace.write_text(f"{json.dumps(line)}\n{json.dumps(line | {'timestamp': 1e5})}\n")

    document = json.loads(run(str(trace), "--policy", "round-robin,marginal", "--json").stdout)

    assert list(document) == ["workload", "infinite_cache_hit_rate", "policies"]
    assert document["workload"] == "mine"
    assert document["infinite_cache_hit_rate"] == pytest.approx(512 / 1200)
    assert [each["policy"] for each in document["policies"]] == ["round-robin", "marginal"]
    assert [each["hit_rate"] for each in document["policies"]] == [0, pytest.approx(512 / 1200)]
    assert list(document["policies"][0]) == [field.name for field in fields(PolicyResult)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tenant"], "no such file or generated workload, did you mean `tenants`?"),
        (["hot", "--policy", "marginl"], "unknown policy `marginl`, did you mean `marginal`?"),
        (["hot", "--policy", ","], "name at least one"),
        (["none", "--limit", "9", "--kv-tokens", "1000"], "more than the 512 of a replica"),
        (["hot", "--plot", "x.txt"], "must end in one of .png"),
        (["hot", "--plot", "nowhere/x.png"], "nowhere is not a directory"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str) -> None:
    """The command prints one line on stderr and exits with status 1."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == ""


def test_figures_are_plotted(tmp_path: Path) -> None:
    """The plot is a PNG of a readable size."""
    path = tmp_path / "x.png"
    result = run("hot", "--limit", "30", "--plot", str(path))
    assert result.exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert int.from_bytes(path.read_bytes()[16:20]) > 1000


def test_plotting_without_matplotlib_says_what_to_install(tmp_path: Path) -> None:
    """The command fails before the simulation runs."""
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('matplotlib')")
    code = "from gateway.cli import app; app()"
    result = subprocess.run(
        [sys.executable, "-c", code, "simulate", "hot", "--plot", str(tmp_path / "x.png")],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "pip install 'ray-llm-gateway[plot]'" in result.stderr
