"""Common parts of the comparisons: rounds, names, report files, suspended contenders."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from deployments.local.processes import free_port
from gateway.errors.startup import ConfigError
from loadtests import launch, targets
from loadtests.comparison.path import measure
from loadtests.comparison.path_report import PathLoad
from loadtests.comparison.shared import (
    Machine,
    Rounds,
    parsed_names,
    write_atomically,
    write_json,
)
from loadtests.comparison.suspend import processes_of, resumed, suspended
from loadtests.launch import HOST, PROJECT_ROOT, Unavailable
from loadtests.targets import LoadTarget


class FakeMeasure:
    """Measurements that fail as often as wanted."""

    def __init__(self, failures: dict[str, int] | None = None) -> None:
        self._failures = dict(failures or {})
        """By title, without what is added for another try."""
        self.titles: list[str] = []

    def __call__(self, contender: str, title: str) -> int:
        """Measure."""
        self.titles.append(title)
        name = title.removesuffix(", again")
        if self._failures.get(name, 0):
            self._failures[name] -= 1
            raise Unavailable("broken")
        return len(self.titles)


def played(measure: FakeMeasure, rounds: int, tries: int = 1) -> Rounds[str, int]:
    """Rounds of three contenders."""
    found: Rounds[str, int] = Rounds({n: n for n in "abc"}, Console(quiet=True), tries)
    for number in range(rounds):
        found.play(number, str(number), measure)
    return found


def test_each_round_starts_with_another_contender() -> None:
    """Nobody is always first or last."""
    played(fake := FakeMeasure(), 4)

    orders = ["".join(t.split(", ")[1] for t in fake.titles[3 * n : 3 * n + 3]) for n in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]


def test_a_contender_that_fails_is_dropped_and_the_others_go_on() -> None:
    """It is not measured in later rounds."""
    found = played(fake := FakeMeasure({"1, b": 1}), 3)

    assert found.dropped == {"b": "1, b: broken"}
    assert {name: len(results) for name, results in found.results.items()} == {
        "a": 3,
        "b": 1,
        "c": 3,
    }
    assert not [title for title in fake.titles if title.startswith("2, b")]


def test_a_bad_measurement_may_be_repeated() -> None:
    """Under another title; only a contender that fails every time is dropped."""
    found = played(fake := FakeMeasure({"0, a": 1, "1, c": 2}), 2, tries=2)

    assert fake.titles[:2] == ["0, a", "0, a, again"]
    assert found.dropped == {"c": "1, c, again: broken"}
    assert len(found.results["a"]) == 2


def whole_rounds(failing: tuple[str, int], required: str, rounds: int) -> dict[str, list[int]]:
    """Whole rounds of three contenders of which one fails in one round."""

    def measure(contender: str, number: int) -> int:
        if (contender, number) == failing:
            raise Unavailable("broken")
        return number

    contenders: Rounds[str, int] = Rounds({n: n for n in "abc"}, Console(quiet=True))
    return contenders.run(measure, rounds, time.monotonic() + 60, required)


def test_warming_up_is_no_round() -> None:
    """A contender that fails then is left out."""
    assert whole_rounds(("c", 0), "", 2) == {"a": [1, 2], "b": [1, 2]}


def test_rounds_end_with_a_required_contender() -> None:
    """Only the whole rounds before count, its own included."""
    assert whole_rounds(("c", 2), "c", 3) == {"a": [1], "b": [1], "c": [1]}
    assert whole_rounds(("c", 0), "c", 3) == {"a": [], "b": [], "c": []}


def test_no_round_starts_that_would_end_too_late() -> None:
    """The first one does, whatever the time; how many there were is printed."""
    console = Console(file=io.StringIO(), record=True)
    contenders: Rounds[str, int] = Rounds({"a": "a"}, console)
    assert contenders.run(lambda _, number: number, 5, 0) == {"a": [1]}
    assert "time for 1 rounds only" in console.export_text()


@pytest.mark.parametrize(
    ("value", "expected"), [("b", ["b"]), ("b, a", ["b", "a"]), ("a,a,", ["a"])]
)
def test_names_keep_their_order(value: str, expected: list[str]) -> None:
    """Each is taken once."""
    assert parsed_names(value, ["a", "b"], "--only") == expected


@pytest.mark.parametrize(("value", "why"), [("gatewy", "did you mean|gateway"), (" ,", "at least")])
def test_an_unknown_name_is_refused(value: str, why: str) -> None:
    """The message names the option and what is meant."""
    with pytest.raises(ConfigError, match=rf"^--only: .*({why})"):
        parsed_names(value, ["gateway"], "--only")


def test_a_report_replaces_an_earlier_one(tmp_path: Path) -> None:
    """Nothing else is left in the folder; where writing fails, the earlier one stays."""
    path = tmp_path / "run.json"
    path.write_text("earlier")

    def fail(new: Path) -> None:
        new.write_text("hal")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert path.read_text() == "earlier"

    write_json(path, Machine.here())
    assert path.read_text().startswith("{")
    assert list(tmp_path.iterdir()) == [path]


def is_stopped(process: psutil.Process) -> bool:
    """Whether it stops; a signal takes its time on a busy machine."""
    for _ in range(100):
        if process.status() == psutil.STATUS_STOPPED:
            return True
        time.sleep(0.05)  # noqa: TID251 - no event loop runs here
    return False


def test_a_suspended_contender_runs_on_afterwards(busy: psutil.Process) -> None:
    """So it can be stopped in order."""
    with suspended(LoadTarget("busy", 0, lambda: [busy])):
        assert is_stopped(busy)
    before_s = busy.cpu_times().user
    deadline_s = time.monotonic() + 10
    while busy.cpu_times().user == before_s:
        assert time.monotonic() < deadline_s, "it is still stopped"


def test_a_resumed_contender_answers_and_is_suspended_again() -> None:
    """It is measured awake; the engine's CPU time is not its own."""
    with targets.engine() as engine:
        [process] = engine.engine_processes()
        target = LoadTarget("peer", engine.port, lambda: [process])
        with suspended(target):
            with resumed(target):
                found = measure(target, PathLoad(clients=2, chunks=4, seconds=0.5), list)
            assert is_stopped(process)
    assert found.requests_per_s > 0
    assert found.cpu_s_per_1000 > 0
    assert found.engine_cpu_s_per_1000 == 0
    assert found.client_cpu_s_per_1000 > 0


def test_a_contender_without_processes_is_not_resumed() -> None:
    """Nobody waits for it."""
    with pytest.raises(Unavailable, match="have ended"), resumed(LoadTarget("x", 0, tuple)):
        pass


SUSPENDING = """
import sys, threading
import psutil
from loadtests.comparison.suspend import suspended
from loadtests.targets import LoadTarget
process = psutil.Process(int(sys.argv[1]))
with suspended(LoadTarget("busy", 0, lambda: [process])):
    print(flush=True)
    threading.Event().wait()
"""


def test_a_suspended_contender_ends_when_the_command_is_killed(busy: psutil.Process) -> None:
    """Nobody would be left to resume it."""
    command = [sys.executable, "-c", SUSPENDING, str(busy.pid)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        assert is_stopped(busy)
        starter.kill()
    assert busy.wait(timeout=60) == -signal.SIGTERM


def test_a_running_gateway_is_never_suspended() -> None:
    """Nor is anything else of the session that it was started in."""
    port = free_port()
    server = [sys.executable, "-u", "-m", "http.server", "--bind", HOST, str(port)]
    with launch.session_leader(server, {}) as (leader, _, log):
        launch.await_line("Serving", log, leader)
        with targets.gateway(f"http://{HOST}:{port}") as target, suspended(target):
            assert [process.pid for process in target.other_processes()] == [leader.pid]
            assert processes_of(target) == []
            assert leader.status() != psutil.STATUS_STOPPED


def test_only_a_gateway_on_this_machine_is_measured() -> None:
    """Load stays here."""
    with pytest.raises(Unavailable), targets.gateway("http://192.0.2.1:8000"):
        pass
