"""Processes of load tests: started, awaited and ended, with their CPU time counted."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import psutil
import pytest

from loadtests import launch
from loadtests.cpu_time import CpuTime
from loadtests.launch import PROJECT_ROOT, Unavailable
from loadtests.targets import missing_replicas
from tests.http_server import Handler, serving


def python(code: str) -> list[str]:
    """A command that runs it."""
    return [sys.executable, "-c", code]


def test_a_line_of_output_is_awaited() -> None:
    """The whole line is returned."""
    code = "import time; print('a'); print('  export X=1', flush=True); time.sleep(60)"
    with launch.logged(python(code)) as (process, log):
        assert launch.await_line("  export ", log, process) == "  export X=1"


def test_a_process_that_ends_before_its_line_is_unavailable() -> None:
    """Its output is part of the reason."""
    with (
        pytest.raises(Unavailable, match=r"(?s)ended .* no line 'export'.*no port for me"),
        launch.logged(python("raise SystemExit('no port for me')")) as (process, log),
    ):
        launch.await_line("  export ", log, process)


def test_a_line_is_awaited_for_a_limited_time() -> None:
    """The reason names the time."""
    with (
        pytest.raises(Unavailable, match=r"not ready within 0\.1 s: .*'export'"),
        launch.logged(python("import time; time.sleep(60)")) as (process, log),
    ):
        launch.await_line("  export ", log, process, timeout_s=0.1)


def test_reading_a_log_does_not_move_its_writer() -> None:
    """The writer shares the file offset, and would overwrite what is there."""
    with tempfile.TemporaryFile(buffering=0) as log:
        log.write(b"one\ntwo\n")
        os.lseek(log.fileno(), 4, os.SEEK_SET)
        assert list(launch.log_lines(log)) == ["one", "two"]
        assert os.lseek(log.fileno(), 0, os.SEEK_CUR) == 4


STARTER = """
import sys, threading
from loadtests import launch
launch.exit_on_signals()
with launch.running([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
    print(process.pid, flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_started_processes_too(number: signal.Signals) -> None:
    """Also when the terminal is closed."""
    with subprocess.Popen(python(STARTER), cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        started = psutil.Process(int(starter.stdout.readline()))
        starter.send_signal(number)
        assert starter.wait(timeout=60) == 128 + number
    assert not started.is_running()


SPINNER = "import time\nwhile time.process_time() < 0.2: pass\nprint(1, flush=True); time.sleep(60)"


@pytest.fixture
def spinners() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Two processes that have taken some CPU time each."""
    running = [subprocess.Popen(python(SPINNER), stdout=subprocess.PIPE) for _ in range(2)]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    yield running
    for process in running:
        process.kill()
        process.communicate()


def test_cpu_time_of_a_later_process_counts_whole(
    spinners: list["subprocess.Popen[bytes]"],
) -> None:
    """And nothing from before the count started."""
    first, second = (psutil.Process(process.pid) for process in spinners)
    there = [first]
    counted = CpuTime(lambda: there)
    assert counted.spent_s < 0.1
    there.append(second)
    assert counted.spent_s > 0.1
    assert counted.ended == []


def test_an_ended_process_is_named_and_not_subtracted(
    spinners: list["subprocess.Popen[bytes]"],
) -> None:
    """So no figure is made of the rest."""
    there = [psutil.Process(process.pid) for process in spinners]
    counted = CpuTime(lambda: there)
    spinners[0].kill()
    spinners[0].wait()
    assert counted.spent_s >= 0
    assert counted.ended == [spinners[0].pid]


class Cards(Handler):
    """Says of each model how many replicas it has."""

    def get(self) -> None:
        """Answer `/v1/models`."""
        cards = [{"id": "a", "replicas": 2}, {"id": "b", "replicas": 1}]
        self.answer(200, json.dumps({"data": cards}).encode())


@pytest.fixture
def gateway() -> Iterator[int]:
    """The port of one with two models."""
    with serving(Cards) as port:
        yield port


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        ({"a": 2, "b": 1}, ""),
        ({"a": 1, "b": 0}, ""),
        ({"a": 2, "b": 8}, "b has 1 of 8 replicas"),
        ({"a": 2, "c": 1}, "c has 0 of 1 replicas"),
    ],
)
def test_missing_replicas_of_every_model_are_named(
    gateway: int, wanted: dict[str, int], missing: str
) -> None:
    """A model answers as soon as it has one."""
    assert missing_replicas(gateway, wanted) == missing


def test_a_gateway_that_does_not_answer_is_not_ready() -> None:
    """Its error is the reason."""
    assert missing_replicas(1, {"a": 1})
