"""The comparison of the data path: how it judges, who is skipped, who rests."""

import ast
import contextlib
import importlib.util
import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import msgspec
import psutil
import pytest
from rich.console import Console

from deployments import local
from deployments.processes import free_port
from gateway.config.sim import Simulation
from loadtests import launch, targets
from loadtests.comparison.machine import Machine
from loadtests.comparison.path.command import Turns
from loadtests.comparison.path.contenders import start
from loadtests.comparison.path.judging import judge, throughput_ratio
from loadtests.comparison.path.plot import draw
from loadtests.comparison.path.report import Report
from loadtests.comparison.rest import awake, processes_of, resting
from loadtests.comparison.rotation import rotated
from loadtests.launch import HOST, PROJECT_ROOT, Unavailable
from loadtests.measurement import Load, Sample, Unsteady, measure
from loadtests.peers import ray_llm
from loadtests.peers.environment import Environment, run_installer
from loadtests.targets import Target
from tests.http_server import Handler, serving

RETIRED_PORTS = "RAY_SERVE_PORT_QUARANTINE_S"
"""How long a port is kept, no port."""

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
    ("ours", "verdicts"),
    [
        (sample(110, 0.5, 1.125), [True, True, True, True]),
        (sample(109, 0.5, 1.125), [True, False, True, True]),
        (sample(110, 0.6, 1.125), [True, True, False, True]),
        (sample(110, 0.5, 1.25), [False, True, True, True]),
        (sample(89, 0.5, 1.125), [True, False, True, False]),
    ],
)
def test_the_bars(ours: Sample, verdicts: list[bool]) -> None:
    """Time is judged against the engine alone, the rest against vLLM's router and Ray's path."""
    samples = {
        "direct": [sample(500, 0, 0.125)],
        "gateway": [ours],
        "vllm-router cache_aware": [sample(100, 0.5, 0.5)],
        "smg cache_aware": [sample(1000, 0.1, 0.1)],
        "ray-serve-llm": [sample(3, 10, 13)],
        "ray-serve-llm optimised": [sample(1000, 10, 13)],
    }
    assert [bar.is_met for bar in judge(samples)] == verdicts


def test_without_the_gateway_there_is_nothing_to_judge() -> None:
    """A run of peers alone has figures, but no bars."""
    assert judge({"direct": [sample(500)], "vllm-router cache_aware": [sample(100)]}) == []


def test_rounds_are_compared_with_each_other() -> None:
    """A round in which the machine was slow for everybody changes no ratio."""
    ours = [sample(120), sample(12), sample(12)]
    ratio = throughput_ratio(ours, [sample(100), sample(10), sample(10)])
    assert (ratio.least, ratio.most) == pytest.approx((1.2, 1.2))


def test_the_median_of_the_ratios_decides() -> None:
    """One bad round of five loses nothing, and shows in the spread."""
    samples = {
        "direct": [sample(500)] * 5,
        "gateway": [sample(150)] * 4 + [sample(15)],
        "vllm-router x": [sample(100)] * 5,
    }
    [requests] = [bar for bar in judge(samples) if bar.name.startswith("requests")]
    assert requests.is_met
    assert (requests.reached.least, requests.reached.most) == pytest.approx((0.15, 1.5))


def test_a_peer_that_cannot_be_had_is_skipped_by_name() -> None:
    """The others are measured, and the reason is in the report."""

    def broken() -> AbstractContextManager[Target]:
        raise Unavailable("no wheel for this platform")

    with ExitStack() as stack:
        wanted = {"broken": broken, "engine": targets.engine}
        started, missing = start(stack, wanted, Console(quiet=True))
        assert [target.name for target in started] == ["direct"]
        assert missing == {"broken": "no wheel for this platform"}


def test_the_simulated_engine_is_where_ray_is_told() -> None:
    """Ray imports it by name, in a process of its own."""
    module, _, name = ray_llm.SIMULATED[ray_llm.ENGINE_CLASS].rpartition(".")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def test_all_engines_have_the_pace_that_is_asked_for() -> None:
    """The one behind the routers, the gateway's and Ray's."""
    assert Simulation.model_validate(targets.pace(0)).instant

    simulation = Simulation.model_validate(targets.pace(20))
    assert not simulation.instant
    assert simulation.step_s == 0.02
    assert simulation.max_sequences == targets.MOST_CLIENTS
    assert ray_llm.DEFAULT.paced(20).variables[ray_llm.PACE] == "20"


def test_an_engine_that_takes_its_time_is_as_fast_as_its_tokens_come() -> None:
    """Four clients with streams of 64 tokens, 10 ms each: two thirds of a second and more."""
    with targets.engine(10) as engine:
        found = measure(engine, Load(clients=4, seconds=1, token_ms=10), tuple)

    assert 0 < found.requests_per_s < 4 / 0.64
    assert found.ttft_p50_ms > 10


def test_ray_runs_apart_from_the_gateway() -> None:
    """Every port that Serve would choose for itself is chosen for this cluster alone."""
    ports = {name for name in local.environment() if "PORT" in name} - {RETIRED_PORTS}
    assert ports == {name for name in ray_llm.APART if "PORT" in name}


def test_an_installer_that_fails_says_why() -> None:
    """The last line of what it said is the reason."""
    command = [sys.executable, "-c", "raise SystemExit('a first line\\nno such version')"]
    with pytest.raises(Unavailable, match=r"^peer==1: no such version$"):
        run_installer(command, "peer==1")


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    """And where there is no room for it, that is the reason."""
    home = tmp_path / "peer"
    home.mkdir()
    (home / "ready-1").touch()
    assert Environment("peer", "1", folder=tmp_path).tool("run") == home / "bin" / "run"
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"^peer==2: "):
        Environment("peer", "2", folder=tmp_path / "file").tool("run")


@pytest.fixture
def idle() -> Iterator[psutil.Process]:
    """A process that would run for ever."""
    process = psutil.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait()


def is_stopped(process: psutil.Process) -> bool:
    """Whether it stops; a signal takes its time on a busy machine."""
    for _ in range(100):
        if process.status() == psutil.STATUS_STOPPED:
            return True
        time.sleep(0.05)  # noqa: TID251 - no event loop runs here
    return False


def test_who_rests_is_stopped_and_runs_on_afterwards(idle: psutil.Process) -> None:
    """So it can be ended in order."""
    target = Target("idle", 0, lambda: [idle])
    with resting(target):
        assert is_stopped(idle)
    before_s = idle.cpu_times().user
    for _ in range(100):
        if idle.cpu_times().user > before_s:
            return
        time.sleep(0.05)  # noqa: TID251 - no event loop runs here
    pytest.fail("it is still stopped")


def test_who_has_its_turn_answers_and_then_rests_again() -> None:
    """It is measured awake; the engine's CPU time counts for nobody."""
    with targets.engine() as engine:
        [process] = engine.engine_processes()
        target = Target("peer", engine.port, lambda: [process])
        with resting(target):
            with awake(target):
                found = measure(target, Load(clients=2, chunks=4, seconds=0.5), list)
            assert is_stopped(process)
    assert found.requests_per_s > 0
    assert found.cpu_s_per_1000 > 0
    assert found.engine_cpu_s_per_1000 == 0
    assert found.client_cpu_s_per_1000 > 0


RESTING = """
import sys, threading
import psutil
from loadtests.comparison.rest import resting
from loadtests.targets import Target
process = psutil.Process(int(sys.argv[1]))
with resting(Target("idle", 0, lambda: [process])):
    print(flush=True)
    threading.Event().wait()
"""


def test_who_rests_is_ended_when_the_command_is_killed(idle: psutil.Process) -> None:
    """Nobody would be left to wake it up."""
    command = [sys.executable, "-c", RESTING, str(idle.pid)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        assert is_stopped(idle)
        starter.kill()
    assert idle.wait(timeout=60) == -signal.SIGTERM


def test_what_was_not_started_here_is_never_stopped(idle: psutil.Process) -> None:
    """A gateway that somebody else uses goes on while others are measured."""
    target = Target("theirs", 0, lambda: [idle], is_started_here=False)
    with resting(target):
        assert processes_of(target) == []
        assert idle.status() != psutil.STATUS_STOPPED


def test_a_gateway_that_runs_already_is_not_ours_to_stop() -> None:
    """Nor is anything else of the session that it was started in."""
    port = free_port()
    server = [sys.executable, "-u", "-m", "http.server", "--bind", HOST, str(port)]
    with launch.leading(server, {}) as (leader, _, log):
        launch.await_line("Serving", log, leader)
        with targets.gateway(f"http://{HOST}:{port}") as target, resting(target):
            assert [process.pid for process in target.other_processes()] == [leader.pid]
            assert leader.status() != psutil.STATUS_STOPPED


def test_who_has_no_processes_left_does_not_wake_up() -> None:
    """And nobody waits for it."""
    with pytest.raises(Unavailable, match="its processes have ended"), awake(Target("x", 0, tuple)):
        pass


def test_a_count_of_cpu_time_that_lost_a_process_is_none(idle: psutil.Process) -> None:
    """Though all was answered: what the process took last is not known."""
    looks = [[idle]]

    def carriers() -> list[psutil.Process]:
        if looks:
            return looks.pop()
        idle.kill()
        idle.wait()
        return []

    with targets.engine() as engine, pytest.raises(Unsteady, match=str(idle.pid)):
        measure(Target("x", engine.port, carriers), Load(clients=1, chunks=1, seconds=0.1), list)


class Babbler(Handler):
    """Answers every request with something that is no stream."""

    protocol_version = "HTTP/1.1"

    def post(self) -> None:
        """Say that all is well."""
        self.body()
        self.answer(200, b"{}")


@pytest.fixture
def babbler() -> Iterator[int]:
    """The port of one."""
    with serving(Babbler) as port:
        yield port


def test_who_fails_in_a_turn_is_dropped_and_the_others_go_on(
    babbler: int, idle: psutil.Process
) -> None:
    """With the reason, and without a trace in the figures."""
    broken = Target("broken", babbler, lambda: [idle])
    with targets.engine() as engine:
        works = Target("works", engine.port, lambda: [idle])
        turns = Turns(engine, [broken, works], Console(quiet=True))
        load = Load(clients=2, chunks=4, seconds=0.5)
        samples = turns.play(load, rounds=2, end_s=time.monotonic() + 60)
    assert {name: len(rounds) for name, rounds in samples.items()} == {"direct": 2, "works": 2}
    assert "status 200" in turns.dropped.pop("broken")
    assert not turns.dropped


def test_who_has_died_is_dropped_and_the_others_go_on(idle: psutil.Process) -> None:
    """Though it was well in the rounds before."""
    with targets.engine() as engine, targets.engine() as doomed:
        died = Target("died", doomed.port, doomed.engine_processes)
        works = Target("works", engine.port, lambda: [idle])
        turns = Turns(engine, [died, works], Console(quiet=True))
        load = Load(clients=1, chunks=1, seconds=0.1)
        turns.play(load, rounds=1, end_s=0)
        [process] = doomed.engine_processes()
        process.kill()
        process.wait()
        samples = turns.play(load, rounds=1, end_s=0)
    assert set(samples) == {"direct", "works"}
    assert "it ended" in turns.dropped["died"]


def test_each_round_begins_with_another_target() -> None:
    """The engine alone included."""
    told = Console(record=True, file=io.StringIO(), width=80)
    with targets.engine() as engine:
        works = Target("works", engine.port, engine.engine_processes, is_started_here=False)
        turns = Turns(engine, [works], told)
        turns.play(Load(clients=1, chunks=1, seconds=0.1), rounds=2, end_s=time.monotonic() + 60)
    assert told.export_text().splitlines()[2:] == [
        "round 1 of 2: direct",
        "round 1 of 2: works",
        "round 2 of 2: works",
        "round 2 of 2: direct",
    ]


@pytest.mark.parametrize(("by", "expected"), [(0, "abc"), (1, "bca"), (5, "cab")])
def test_rotation(by: int, expected: str) -> None:
    """All of them, beginning with another one."""
    assert "".join(rotated("abc", by)) == expected


def test_no_round_begins_that_would_end_too_late() -> None:
    """The first one does, whatever the time."""
    with targets.engine() as engine:
        turns = Turns(engine, [], Console(quiet=True))
        samples = turns.play(Load(clients=1, seconds=0.1), rounds=5, end_s=0)
    assert len(samples["direct"]) == 1


def report(missing: dict[str, str]) -> Report:
    """A small run."""
    samples = {"direct": [sample(500, 0)], "gateway": [sample(250)], "other": [sample(100)]}
    versions = {"other": "other 1.0"}
    return Report(MACHINE, Load(), versions, samples, missing, judge(samples))


def test_the_tables_say_all() -> None:
    """Figures, ratios, and who is missing and why."""
    console = Console(width=170, record=True, file=io.StringIO())
    report({"litellm": "no [proxy] here"}).print(console)
    text = console.export_text()
    assert "2.50" in text  # times as many requests as the other
    assert "litellm skipped: no [proxy] here" in text


def test_the_tables_say_what_decides() -> None:
    """And how the machine was shared with the client."""
    console = Console(width=170, record=True, file=io.StringIO())
    report({}).print(console)
    text = console.export_text()
    assert "the median of all rounds decides" in " ".join(text.split())
    assert "the client's" in text


def test_the_report_can_be_read_again(tmp_path: Path) -> None:
    """From JSON, with the versions of the peers."""
    written = report({})
    path = tmp_path / "run.json"
    path.write_bytes(msgspec.json.encode(written))
    assert msgspec.json.decode(path.read_bytes(), type=Report) == written


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    """With a contender that has no CPU time to show."""
    path = tmp_path / "run.svg"
    draw(path, report({}))
    assert path.read_text().count("<path") > 50
