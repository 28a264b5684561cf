"""The locust load test as a user runs it: against an engine alone, and a broken server."""

import http.client
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deployments.local import processes
from loadtests.locust_users.results import Results
from loadtests.targets import engine
from tests.gateway_process import ROOT, wait_for
from tests.http_server import Handler, serving

pytestmark = pytest.mark.integration

LOCUST = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py"]
SECONDS = 4
BROKEN = [
    (429, {"retry-after": "1"}, b'{"error": {"message": "Later.", "code": "overloaded"}}'),
    (500, {}, b'{"error": {"message": "Oh.", "type": "server_error"}}'),
    (200, {}, b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'),
]
"""What a broken server answers, in turns."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """An engine that answers at once."""
    with engine() as target:
        yield f"http://127.0.0.1:{target.port}"


def loaded(host: str, folder: Path, *options: str) -> tuple[int, Results, str]:
    """Locust's exit status, its results, and what it says."""
    kept = ["--results", str(folder / "results.json"), "--plot", str(folder / "plot.png")]
    wishes = ["--host", host, "--headless", "--run-time", f"{SECONDS}s", "--think-scale", "0"]
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(
        [*LOCUST, *wishes, *kept, *options],
        check=False,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    results = folder / "results.json"
    assert results.exists(), done.stdout
    return done.returncode, msgspec.json.decode(results.read_bytes(), type=Results), done.stdout


def test_a_load_test_measures_an_engine(host: str, tmp_path: Path) -> None:
    """Answers are whole, tokens are counted, shared prefixes are cached; there is a picture."""
    options = ["--workload", "agents", "--users", "3", "--scale", "0.2"]
    status, results, said = loaded(host, tmp_path, *options)

    assert status == 0, said
    total = results.total
    assert total.answered == total.requests > 3
    assert [*results.models] == ["sim"]
    assert total.completion_tokens > total.answered
    assert total.hit_rate is not None
    assert 0 < total.hit_rate < 1
    assert total.ttft_s is not None
    assert total.itl_s is not None
    assert total.e2e_s is not None
    assert 0 < total.ttft_s.p50 <= total.e2e_s.p50 <= total.e2e_s.most
    assert max(look.users for look in results.looks) == 3
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    for statistic in ("TTFT", "ITL", "E2E", "TOK/S", "CACHED"):
        row = re.search(rf"^{statistic} +sim +(\d+) ", said, re.MULTILINE)
        assert row, said
        assert int(row[1]) > 1


def test_the_command_prints_a_table_and_keeps_files(host: str) -> None:
    """`make loadtest` with a URL; what it keeps is in one folder."""
    command = [sys.executable, "-m", "loadtests.locust_run", "--url", host, "--users", "2"]
    done = subprocess.run(
        [*command, "--workload", "none", "--run-time", f"{SECONDS}s"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout
    assert "none, steady, up to 2 users" in done.stdout
    told = re.search(r"^in (.+): (.+)$", done.stdout, re.MULTILINE)
    assert told, done.stdout
    kept = {path.name for path in Path(told[1]).iterdir()}
    shutil.rmtree(told[1])
    assert kept == {"locust.log", "plot.png", "report.html", "results.json"}


def test_a_trace_is_sent_at_its_times(host: str, tmp_path: Path) -> None:
    """All of it; then the test is over."""
    trace = tmp_path / "trace.jsonl"
    line = {"timestamp": 0, "input_length": 1024, "output_length": 8, "hash_ids": [1, 2]}
    lines = [json.dumps(line | {"timestamp": 100 * number}) for number in range(20)]
    trace.write_text("\n".join(lines))
    options = ["--workload", "trace", "--trace", str(trace), "--scale", "1", "--run-time", "60s"]
    status, results, said = loaded(host, tmp_path, *options)

    assert status == 0, said
    assert results.total.answered == 20
    assert results.total.prompt_tokens >= 20 * 1024
    assert results.seconds >= 1.9
    assert results.unsent == 0
    assert results.late_s is not None
    assert results.late_s.p50 >= 0
    assert results.peak is not None
    assert results.peak.seconds == pytest.approx(1.9, abs=0.5)


def test_a_test_without_answers_fails(tmp_path: Path) -> None:
    """Requests cut at the end are counted, and so are those not yet due; the status is 1."""
    trace = tmp_path / "trace.jsonl"
    line = {"timestamp": 0, "input_length": 512, "output_length": 8, "hash_ids": [1]}
    times = (0, 100, 200, 60_000)
    trace.write_text("\n".join(json.dumps(line | {"timestamp": time}) for time in times))
    options = ["--workload", "trace", "--trace", str(trace)]
    with serving(Silent) as port:
        status, results, said = loaded(
            f"http://127.0.0.1:{port}/v1",  # as SDKs have it
            tmp_path,
            *options,
            *("--run-time", "2s", "--stop-timeout", "1"),
        )

    assert status == 1, said
    total = results.total
    assert (total.requests, total.answered, total.failed, total.cut) == (3, 0, 0, 3)
    assert results.unsent == 1
    assert "no request was answered" in said


def test_answers_that_are_not_whole_are_failures(tmp_path: Path) -> None:
    """With their reasons; a rejection is none, and the user retries."""
    with serving(Broken) as port:
        options = ["--users", "1", "--model", "any"]
        status, results, said = loaded(f"http://127.0.0.1:{port}", tmp_path, *options)

    assert status == 1, said
    total = results.total
    assert total.answered == 0
    assert total.rejections == {"429 overloaded: Later.": total.rejected}
    assert 0 < total.rejected <= total.failed + 1
    assert {*total.failures} <= {"500 server_error: Oh.", "the stream ended without [DONE]"}
    assert re.search(rf"^REJECTED +any +{total.rejected} ", said, re.MULTILINE), said


def test_the_web_page_offers_workloads_and_shapes(host: str) -> None:
    """On its own address, without any load until somebody starts it."""
    port = processes.free_port()
    page = subprocess.Popen(
        [*LOCUST, "--host", host, "--web-host", "127.0.0.1", "--web-port", str(port)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _page(port))
        text = _page(port)
    finally:
        page.terminate()
        page.wait(30)

    assert '"tenants"' in text
    assert '"diurnal"' in text
    assert '"state": "ready"' in text


def _page(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


class Broken(Handler):
    """Answers with one of `BROKEN` after the other."""

    asked = 0

    def get(self) -> None:
        """There are no models."""
        self.answer(200, b'{"data": []}')

    def post(self) -> None:
        """Something is always wrong."""
        self.body()
        status, headers, content = BROKEN[type(self).asked % len(BROKEN)]
        type(self).asked += 1
        self.answer(status, content, headers)


class Silent(Broken):
    """Has a model that can chat, and says nothing when it is asked for a stream."""

    def get(self) -> None:
        """There is a model."""
        self.answer(200, b'{"data": [{"id": "any"}]}')

    def post(self) -> None:
        """Wait until the client has gone."""
        body = json.loads(self.body())
        if "stream" in body:
            self.rfile.read(1)
        else:
            self.answer(200, b"{}")
