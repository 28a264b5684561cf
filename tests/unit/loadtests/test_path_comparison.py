"""The data path comparison: goals, contenders that fail, suspension, report."""

import ast
import importlib.util
import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import msgspec
import psutil
import pytest
from rich.console import Console

from deployments.local import run as local
from gateway.config.sim import Simulation
from loadtests import targets
from loadtests.comparison.path import ProcessesChanged, measure, play, start
from loadtests.comparison.path_report import (
    PathLoad,
    PathReport,
    Sample,
    draw,
    goals,
    throughput_ratio,
)
from loadtests.comparison.shared import Machine
from loadtests.launch import Unavailable
from loadtests.peers import ray_llm
from loadtests.peers.environment import Environment, run_installer
from loadtests.targets import LoadTarget
from tests.http_server import Handler, serving

NOT_PORTS = {"RAY_SERVE_PORT_QUARANTINE_S"}
MACHINE = Machine(cpus=2, memory_gib=8, system="Linux", python="3.11", date="2026-01-01")


def sample(requests_per_s: float, cpu_s: float = 0.1, ttft_ms: float = 0.1) -> Sample:
    """What a target might have done in a round."""
    return Sample(
        requests_per_s=requests_per_s,
        chunks_per_s=67 * requests_per_s,
        cpu_s_per_1000=cpu_s,
        engine_cpu_s_per_1000=0.4,
        client_cpu_s_per_1000=0.3,
        beside_cpus=0,
        ttft_p50_ms=ttft_ms,
        ttft_p99_ms=ttft_ms,
    )


@pytest.mark.parametrize(
    ("ours", "are_met"),
    [
        (sample(110, 0.5, 1.125), [True, True, True, True]),
        (sample(109, 0.5, 1.125), [True, False, True, True]),
        (sample(110, 0.6, 1.125), [True, True, False, True]),
        (sample(110, 0.5, 1.25), [False, True, True, True]),
        (sample(89, 0.5, 1.125), [True, False, True, False]),
    ],
)
def test_goals_are_latency_throughput_and_cpu(ours: Sample, are_met: list[bool]) -> None:
    """Latency over the engine's, the others over vLLM's router and Ray's defaults."""
    samples = {
        "direct": [sample(500, 0, 0.125)],
        "gateway": [ours],
        "vllm-router cache_aware": [sample(100, 0.5, 0.5)],
        "smg cache_aware": [sample(1000, 0.1, 0.1)],
        "ray-serve-llm": [sample(3, 10, 13)],
        "ray-serve-llm optimised": [sample(1000, 10, 13)],
    }
    assert [goal.is_met for goal in goals(samples)] == are_met
    assert goals({name: samples[name] for name in samples if name != "gateway"}) == []


def test_the_median_of_the_ratios_of_rounds_decides() -> None:
    """A round in which the machine was slow for all changes no ratio; one bad round loses none."""
    ratio = throughput_ratio([sample(120), sample(12)], [sample(100), sample(10)])
    assert (ratio.least, ratio.most) == pytest.approx((1.2, 1.2))

    samples = {
        "direct": [sample(500)] * 5,
        "gateway": [sample(150)] * 4 + [sample(15)],
        "vllm-router x": [sample(100)] * 5,
    }
    [requests] = [goal for goal in goals(samples) if goal.name.startswith("requests")]
    assert requests.is_met
    assert (requests.reached.least, requests.reached.most) == pytest.approx((0.15, 1.5))


def test_a_contender_that_cannot_start_is_skipped_with_its_reason() -> None:
    """The others are measured."""

    def broken() -> AbstractContextManager[LoadTarget]:
        raise Unavailable("no wheel for this platform")

    with ExitStack() as stack:
        wanted = {"broken": broken, "engine": targets.engine}
        started, missing = start(stack, wanted, Console(quiet=True))
        assert [target.name for target in started] == ["direct"]
        assert missing == {"broken": "no wheel for this platform"}


def test_ray_finds_the_simulated_engine_by_its_name() -> None:
    """Ray imports it in a process of its own."""
    module, _, name = ray_llm.SIMULATED[ray_llm.ENGINE_CLASS].rpartition(".")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def test_ray_has_ports_of_its_own() -> None:
    """Every port that Serve would choose is chosen for its cluster alone."""
    ports = {name for name in local.environment() if "PORT" in name} - NOT_PORTS
    assert ports == {name for name in ray_llm.CLUSTER_VARIABLES if "PORT" in name}


def test_all_engines_have_the_same_time_per_token() -> None:
    """The one behind the routers, the gateway's and Ray's."""
    assert Simulation.model_validate(targets.engine_speed(0)).instant

    simulation = Simulation.model_validate(targets.engine_speed(20))
    assert (simulation.instant, simulation.step_s) == (False, 0.02)
    assert simulation.max_sequences == targets.MAX_CLIENTS
    assert ray_llm.DEFAULT.with_token_ms(20).variables[ray_llm.PACE] == "20"

    with targets.engine(10) as engine:  # four clients, streams of 64 tokens
        found = measure(engine, PathLoad(clients=4, seconds=1, token_ms=10), tuple)
    assert 0 < found.requests_per_s < 4 / 0.64
    assert found.ttft_p50_ms > 10


def test_an_installer_that_fails_gives_its_last_line() -> None:
    """As the reason why a contender is skipped."""
    command = [sys.executable, "-c", "raise SystemExit('a first line\\nno such version')"]
    with pytest.raises(Unavailable, match=r"^peer==1: no such version$"):
        run_installer(command, "peer==1")


def test_an_installed_package_is_not_installed_again(tmp_path: Path) -> None:
    """Where it cannot be installed, that is the reason."""
    home = tmp_path / "peer"
    home.mkdir()
    (home / "ready-1").touch()
    assert Environment("peer", "1", folder=tmp_path).tool("run") == home / "bin" / "run"
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"^peer==2: "):
        Environment("peer", "2", folder=tmp_path / "file").tool("run")


def test_cpu_time_is_not_counted_without_a_process_that_ended(busy: psutil.Process) -> None:
    """Although every request was answered: its last CPU time is unknown."""
    found = [[busy]]

    def carriers() -> list[psutil.Process]:
        if found:
            return found.pop()
        busy.kill()
        busy.wait()
        return []

    target = PathLoad(clients=1, chunks=1, seconds=0.1)
    with targets.engine() as engine, pytest.raises(ProcessesChanged, match=str(busy.pid)):
        measure(LoadTarget("x", engine.port, carriers), target, list)


class NoStream(Handler):
    """Answers every request with something that is no stream."""

    protocol_version = "HTTP/1.1"

    def post(self) -> None:
        """Answer 200."""
        self.body()
        self.answer(200, b"{}")


@pytest.fixture
def no_stream() -> Iterator[int]:
    """The port of such a server."""
    with serving(NoStream) as port:
        yield port


def test_contenders_that_fail_or_die_are_dropped(no_stream: int, busy: psutil.Process) -> None:
    """With their reasons, and without a trace in the figures; the others go on."""
    with targets.engine() as engine, targets.engine() as doomed:
        broken = LoadTarget("broken", no_stream, lambda: [busy])
        died = LoadTarget("died", doomed.port, doomed.engine_processes)
        [process] = doomed.engine_processes()
        process.kill()
        process.wait()
        works = LoadTarget("works", engine.port, lambda: [busy])
        load = PathLoad(clients=2, chunks=4, seconds=0.5)
        console = Console(quiet=True)
        samples, dropped = play(engine, [broken, died, works], load, 1, 0, console)

    assert {name: len(rounds) for name, rounds in samples.items()} == {"direct": 1, "works": 1}
    assert "status 200" in dropped["broken"]
    assert "it ended" in dropped["died"]


def test_without_the_engine_nothing_is_measured() -> None:
    """The command fails with the reason."""
    with targets.engine() as engine:
        [process] = engine.engine_processes()
        process.kill()
        process.wait()
        with pytest.raises(Unavailable, match="direct"):
            play(engine, [], PathLoad(clients=1, seconds=0.1), 1, 0, Console(quiet=True))


def report(missing: dict[str, str]) -> PathReport:
    """A small run."""
    samples = {"direct": [sample(500, 0)], "gateway": [sample(250)], "other": [sample(100)]}
    return PathReport(
        machine=MACHINE,
        load=PathLoad(),
        versions={"other": "other 1.0"},
        samples=samples,
        missing=missing,
        bars=goals(samples),
    )


def test_the_tables_have_figures_ratios_and_the_missing() -> None:
    """With their reasons, and with what decides about goals."""
    console = Console(width=170, record=True, file=io.StringIO())
    report({"litellm": "no [proxy] here"}).print(console)
    text = console.export_text()

    assert "2.50" in text  # times as many requests as the other
    assert "litellm skipped: no [proxy] here" in text
    assert "the client's" in text
    assert "the median of all rounds decides" in " ".join(text.split())


def test_the_report_can_be_read_again() -> None:
    """From JSON, and so can those of earlier runs."""
    written = report({})
    assert msgspec.json.decode(msgspec.json.encode(written), type=PathReport) == written

    kept = Path(targets.__file__).parent / "results" / "path.json"
    assert len(msgspec.json.decode(kept.read_bytes(), type=PathReport).samples) > 5


def test_the_picture_has_contenders_without_cpu_time(tmp_path: Path) -> None:
    """On a logarithmic scale, where they have no place."""
    path = tmp_path / "run.svg"
    draw(path, report({}))
    assert path.read_text().count("<path") > 50
