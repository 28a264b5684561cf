"""The installed vLLM, without an engine: what our guards in its process refuse."""

import importlib.util
import json
import re

import pytest

from deployments.engines.vllm.merged_outputs import MERGING
from tests.contract.with_vllm import run_script

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM")

SCRIPT = r"""
import asyncio, contextlib, http.server, json, os, signal, threading, time

import psutil

from fastapi import FastAPI
from fastapi.testclient import TestClient
from vllm.connections import HTTPConnection
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.app import build_app
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from vllm.sampling_params import StructuredOutputsParams as Spec
from vllm.v1.metrics.stats import SchedulerStats

from deployments.engines.call import current_call, with_call_context
from deployments.engines.vllm.arguments import parse_arguments
from deployments.engines.vllm.client_errors import blame_requests
from deployments.engines.vllm.grammars import GrammarGuard
from deployments.engines.vllm.media import MediaPolicy, register_media_policy, set_media_limits
from deployments.engines.vllm.merged_outputs import MERGING, merge_fairly, merged
from deployments.engines.vllm.stats import StepStatistics
from gateway.config.media import MediaOptions

said = {}

# Deferred requests.
statistics = StepStatistics()
statistics.record(0, SchedulerStats(num_waiting_reqs=1, num_skipped_waiting_reqs=5))
said["waiting"] = statistics.waiting

# Merging.
import importlib, pathlib, vllm
from vllm.utils.async_utils import merge_async_iterators
root = pathlib.Path(vllm.__file__).parent
said["merging"] = sorted(
    "vllm." + ".".join(file.relative_to(root).with_suffix("").parts)
    for folder in ("entrypoints", "renderers")
    for file in (root / folder).rglob("*.py")
    if "merge_async_iterators(" in file.read_text()
)
said["merges"] = [
    importlib.import_module(name).merge_async_iterators is merge_async_iterators for name in MERGING
]
merge_fairly()
said["merges fairly"] = [
    importlib.import_module(name).merge_async_iterators is merged for name in MERGING
]

# Media.
class Host(http.server.BaseHTTPRequestHandler):
    asked = []
    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("location", "/there")
        self.end_headers()
        for _ in range(50 if self.path == "/slow" else 0):
            try:
                self.wfile.write(b"x")
                self.wfile.flush()
            except OSError:
                return
            time.sleep(0.2)
    def log_message(self, *_): pass
host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
threading.Thread(target=host.serve_forever, daemon=True).start()
here = f"127.0.0.1:{host.server_port}"

def loaded(address, domains=(), takes_media=True, is_async=False):
    options = MediaOptions(domains=list(domains), timeout_s=1)
    set_media_limits(options)
    register_media_policy(MediaPolicy(options, takes_media=takes_media))
    connector = MEDIA_CONNECTOR_REGISTRY.load("gateway", media_io_kwargs=None,
        allowed_local_media_path="", allowed_media_domains=None)
    Host.asked.clear()
    try:
        if is_async:
            asyncio.run(connector.fetch_image_async(address))
        else:
            connector.fetch_image(address)
    except VLLMValidationError as error:
        return [str(error), list(Host.asked)]
    return ["loaded", list(Host.asked)]

PIXEL = ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
         "DwADhgGAWjR9awAAAABJRU5ErkJggg==")
refused = [f"http://{here}/x", f"HTTP://{here}/x", f"http://a.example@{here}/x", "file:///etc/passwd",
           "FILE:///etc/passwd", "ftp://a.example/x", "/etc/passwd", "http://[::1]/x", "http://[",
           "http://a.example.:80/x", "http://a.example:22/x", "http://b.a.example/x", ""]
said["refused"] = {url: loaded(url, ["a.example"]) for url in refused}
said["backslash"] = loaded(rf"http://a.example\@{here}/x", ["a.example"])
said["none"] = [loaded(f"http://{here}/x", is_async=each) for each in (False, True)]
said["text model"] = [loaded(PIXEL, takes_media=False), loaded(f"http://{here}/", [here], False)]
said["pixel"] = [loaded(PIXEL, is_async=each) for each in (False, True)]
said["broken"] = [loaded("data:image/png;base64,AAAA"), loaded("data:image/png,x"), loaded("data:")]
said["moved"] = [loaded(f"http://{here}/moved", [here], is_async=each) for each in (False, True)]
said["slow"] = [loaded(f"http://{here}/slow", [here], is_async=each) for each in (False, True)]

# Errors.
app = build_app(parse_arguments({"model": "models/demo"}), ("generate",), None)
blame_requests(app)
@app.post("/shape")
def shape(): return {}["missing"]
@app.post("/late")
async def late():
    current_call().record_accepted()
    return {}["missing"]
@app.post("/machine")
def machine(): raise RuntimeError("out of memory")
client = TestClient(with_call_context(app), raise_server_exceptions=False)
said["errors"] = {path: client.post(path).status_code for path in ("/shape", "/late", "/machine")}

# Grammars.
AMBIGUOUS = 'root ::= s\ns ::= "a" s s | ""'
HUGE = {"type": "object", "properties": {
    f"f{i}": {"type": "string", "pattern": f"^[^{chr(97 + i % 26)}]{{0,{4000 + i}}}$"}
    for i in range(2000)}}
async def verdict(guard, **spec):
    try:
        await guard.check(Spec(**spec))
    except VLLMValidationError as error:
        return str(error)
    return "fine"
def busy_fork(pid):
    with contextlib.suppress(psutil.NoSuchProcess):  # that of an earlier trial
        forks = psutil.Process(pid).children()
        return next((fork.pid for fork in forks if fork.cpu_times().user > 0.5), 0)
async def grammars():
    guard = GrammarGuard(AsyncEngineArgs(model="models/demo").create_engine_config(), 5.0)
    plain = {"type": "object", "properties": {"a": {"type": "null"}}}
    said["plain"] = await verdict(guard, json=plain)
    said["grammars"] = [await verdict(guard, **spec) for spec in (
        {"json": {"$ref": "#"}}, {"regex": r"\p{L}"}, {"json": {"oneOf": [{"enum": []}]}},
        {"json": {"type": "string", "minLength": -1}}, {"grammar": AMBIGUOUS}, {"json": HUGE},
        {"structural_tag": '{"type": "structural_tag"}'}, {"grammar": "root ::= nothing"})]
    said["fine"] = [await verdict(guard, **spec) for spec in (
        {"regex": "a{1,3}"}, {"choice": ["a", "b"]}, {"grammar": 'root ::= "a" | "b" root'},
        {"json": {"type": "string", "maxLength": 200}}, {"json": '{"type": "string"}'},
        {"json": {"type": "array", "items": {"type": "string", "format": "date"}}})]
    process = guard._process._starting.result()
    trial, trials = None, 0
    while not (fork := busy_fork(process.pid)):
        if trial is None or trial.done():  # on a busy machine, its time was over first
            trials += 1
            trial = asyncio.create_task(verdict(guard, json={"title": f"{trials}", **HUGE}))
        await asyncio.sleep(0.05)
    said["fork"] = [os.sched_getscheduler(fork) == os.SCHED_IDLE, os.getsid(fork) == process.pid]
    os.kill(fork, signal.SIGKILL)
    known = len(guard._verdicts)
    said["ended"] = [await trial, len(guard._verdicts) - known]
    process.kill()
    await process.wait()
    await asyncio.sleep(0.1)
    said["again"] = [await verdict(guard, regex="b{1,3}"), await verdict(guard, regex=r"\p{L}")]
    process = guard._process._starting.result()
    await guard.stop()
    said["stopped"] = process.returncode is not None
    guard = GrammarGuard(None, 5.0)
    said["untried"] = await verdict(guard, regex="a{1,3}")
    await guard.stop()
asyncio.run(grammars())
print("SAID" + json.dumps(said))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, object]:
    """Output of the script, run in a process of its own: importing vLLM changes much."""
    ended = run_script(SCRIPT)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("SAID")]
    assert lines, ended.stderr[-3000:]
    found: dict[str, object] = json.loads(lines[-1].removeprefix("SAID"))
    return found


def test_deferred_requests_do_not_wait_for_slots(said: dict[str, object]) -> None:
    """A grammar that compiles keeps nobody from an idle engine."""
    assert said["waiting"] == 1


def test_only_allowed_hosts_are_fetched_from(said: dict[str, object]) -> None:
    """No other spelling reaches another host, another port or a file."""
    refused = said["refused"]
    assert isinstance(refused, dict)
    assert said["backslash"][1] == []  # type: ignore[index]
    for address, (reason, asked) in refused.items():
        assert "parameter=image_url" in reason, address
        assert "the file could not be" not in reason, address
        assert asked == [], address


def test_without_hosts_nothing_is_fetched(said: dict[str, object]) -> None:
    """An empty list allows nothing; vLLM's own would allow everything."""
    reason = "this model fetches nothing; send a `data:` URL (parameter=image_url)"
    assert said["none"] == [[reason, []], [reason, []]]


def test_text_models_load_nothing(said: dict[str, object]) -> None:
    """Neither data URLs nor those of allowed hosts are looked into."""
    reason = "this model takes text only (parameter=image_url)"
    assert said["text model"] == [[reason, []], [reason, []]]


def test_data_urls_are_loaded(said: dict[str, object]) -> None:
    """They need no allowed host; a broken one is the client's error."""
    assert said["pixel"] == [["loaded", []], ["loaded", []]]
    broken = said["broken"]
    assert isinstance(broken, list)
    assert all("the file could not be read" in reason for reason, _ in broken)


def test_redirects_are_not_followed(said: dict[str, object]) -> None:
    """An allowed host cannot send the engine to another one."""
    moved = said["moved"]
    assert isinstance(moved, list)
    assert [asked for _, asked in moved] == [["/moved"], ["/moved"]]
    assert all(reason != "loaded" for reason, _ in moved)


def test_many_prompts_are_merged_fairly_wherever_vllm_merges_them(said: dict[str, object]) -> None:
    """But for speech, whose parts are few."""
    speech = "vllm.entrypoints.speech_to_text.base.serving"
    assert said["merging"] == sorted([*MERGING, speech])
    assert said["merges"] == said["merges fairly"] == [True] * len(MERGING)


def test_a_slow_host_is_given_up(said: dict[str, object]) -> None:
    """The whole file must arrive in time, not each of its bytes, and it is asked for once."""
    slow = said["slow"]
    assert isinstance(slow, list)
    assert [asked for _, asked in slow] == [["/slow"], ["/slow"]]
    assert all("could not be fetched" in reason for reason, _ in slow)


def test_requests_are_blamed_before_the_engine_has_them(said: dict[str, object]) -> None:
    """Errors by the shape of a value are the client's until then; others never are."""
    assert said["errors"] == {"/shape": 400, "/late": 500, "/machine": 500}


def test_grammars_that_fail_explode_or_slow_down_are_refused(said: dict[str, object]) -> None:
    """Each for its reason, before the engine core compiles it."""
    parts = (
        *("no text that ends", "not supported yet", "anyOf is empty", "Invalid repetition"),
        *("slower with every token", " 5 s |within 15 s", "triggers", "Rule 'nothing' not found"),
    )
    grammars = said["grammars"]
    assert isinstance(grammars, list)
    for verdict, part in zip(grammars, parts, strict=True):
        assert re.search(part, verdict)
        assert "parameter=structured_outputs" in verdict


def test_trials_give_way_to_everything_else(said: dict[str, object]) -> None:
    """They are idle tasks, in a session of their own."""
    assert said["fork"] == [True, True]


def test_a_trial_that_is_ended_is_answered_and_not_remembered(said: dict[str, object]) -> None:
    """The grammar may not be to blame."""
    ended = said["ended"]
    assert isinstance(ended, list)
    assert "its trial was ended" in ended[0]
    assert ended[1] == 0


def test_other_grammars_pass(said: dict[str, object]) -> None:
    """Plain schemas without a trial, others after it."""
    assert said["plain"] == "fine"
    assert said["fine"] == ["fine"] * 6


def test_the_process_of_trials_is_started_again(said: dict[str, object]) -> None:
    """Its end costs no request, and what it has found is still known."""
    again = said["again"]
    assert isinstance(again, list)
    assert again[0] == "fine"
    assert "not supported yet" in again[1]
    assert said["stopped"] is True


def test_grammars_pass_untried_if_none_can_be_tried(said: dict[str, object]) -> None:
    """They are then compiled as vLLM does it, and a log line says so."""
    assert said["untried"] == "fine"
