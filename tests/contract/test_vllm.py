"""The installed vLLM, without an engine: its metrics and arguments, and our extensions."""

import json
import re
from pathlib import Path

import pytest

from gateway.config.loader import load_config
from gateway.config.route_paths import ROUTES
from gateway.config.vllm import VllmEntry
from gateway.reference.metrics_tables import VLLM_FIRST
from tests.contract.with_vllm import run_script
from tests.prometheus import labels_in, metrics_in, series_of_gateway, series_of_vllm

PROJECT = Path(__file__).parents[2]
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
PAGE = (PROJECT / "docs" / "metrics.md").read_text()
QUERIES = PAGE.partition("## Queries")[2].partition("## Server-Timing")[0]
SCRIPT = """
import dataclasses, json
import types
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.launchers.app import build_app
from vllm.tasks import FRONTEND_TASKS, GENERATION_TASKS, POOLING_TASKS
from vllm.v1.metrics.buckets import histogram_buckets
from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats
from deployments.engines.vllm.api.routes import put_first
from deployments.engines.vllm.arguments import DEFAULTS, parse_arguments
from deployments.engines.vllm.observed_llm import first_token_of
from deployments.engines.vllm.stats import RayMetricsLogger
from deployments.engines.vllm.lora import AliasedModels, LoadedLoras
from deployments.engines.vllm.version import UnsupportedVersion

broken = object.__new__(RayMetricsLogger)  # has nothing that it would record with
try:
    RayPrometheusStatLogger.record(broken, None, IterationStats())
except AttributeError:
    print("vLLM's own raises")
broken.record(None, IterationStats())
print("ours goes on")

buckets = parse_arguments(DEFAULTS).custom_histogram_buckets
short, long = (
    histogram_buckets("request_tokens", max_model_len=length, overrides=buckets)
    for length in (1000, 100_000)
)
print("the same" if list(short) == list(long) else "not the same")

state = types.SimpleNamespace(is_prefilling=False, num_cached_tokens=32, stats=None)
processor = types.SimpleNamespace(external_req_ids={"x": ["x-1"]}, request_states={"x-1": state})
print("first token:", first_token_of(processor, "x"))
print("without states:", first_token_of(object(), "x"))
del state.num_cached_tokens
print("without tokens:", first_token_of(processor, "x"))
try:
    AliasedModels.adopt(types.SimpleNamespace(lora_requests={}), LoadedLoras(), None)
except UnsupportedVersion as error:
    print(error)

def paths_of(routes):
    for route in routes:
        if hasattr(route, "original_router"):
            yield from paths_of(route.original_router.routes)
        elif hasattr(route, "path"):
            yield route.path

def pooling_task(tasks):
    return next((task for task in tasks if task in POOLING_TASKS), None)

hf_config = types.SimpleNamespace(num_labels=1)
config = types.SimpleNamespace(get_pooling_task=pooling_task, hf_config=hf_config)
arguments = parse_arguments(DEFAULTS)
routes = {
    path
    for task in (*GENERATION_TASKS, *POOLING_TASKS, *FRONTEND_TASKS)
    for path in paths_of(put_first(build_app(arguments, (task,), config)).routes)
}
print("ROUTES" + json.dumps(sorted(routes)))

names = [f.name for c in (AsyncEngineArgs, FrontendArgs) for f in dataclasses.fields(c)]
print("NAMES" + json.dumps(names))
"""


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Output of the script, run in a process of its own: importing vLLM changes much."""
    ended = run_script(SCRIPT)
    return ended.stdout.splitlines()


def test_errors_of_vllm_s_metrics_do_not_reach_the_engine(said: list[str]) -> None:
    """An error of vLLM's logger would end its output loop; ours only logs it."""
    assert [line for line in said if line in {"vLLM's own raises", "ours goes on"}] == [
        "vLLM's own raises",
        "ours goes on",
    ]


def test_models_of_any_length_have_the_same_buckets(said: list[str]) -> None:
    """Ray's agent drops metrics with other buckets than the first engine of its node."""
    assert "the same" in said


def test_without_vllm_s_request_states_a_first_token_is_unknown(said: list[str]) -> None:
    """Routers then learn of a request without streaming only at its end."""
    assert "first token: FirstToken(cached_tokens=32, times=None)" in said
    assert {"without states: None", "without tokens: None"} <= set(said)


def test_models_that_cannot_be_adopted_name_what_is_missing(said: list[str]) -> None:
    """The error names the missing attribute and the supported version."""
    text = "\n".join(said)
    assert "has no `is_base_model`: this gateway supports vLLM 0.32" in text


def test_engine_args_are_vllms(said: list[str]) -> None:
    """Every engine argument in the configs is one that the installed vLLM has."""
    known = set(json.loads(said[-1].removeprefix("NAMES")))
    entries = [model.entry for path in CONFIGS for model in load_config(path).models]
    used = {arg for e in entries if isinstance(e, VllmEntry) for arg in e.engine_args}
    assert used
    assert used <= known


def test_every_route_of_vllm_is_relayed_or_documented(said: list[str]) -> None:
    """A route that a new version brings must be taken up, or listed with the reason why not."""
    (line,) = [line for line in said if line.startswith("ROUTES")]
    routes = set(json.loads(line.removeprefix("ROUTES")))
    page = (PROJECT / "docs" / "reference.md").read_text()
    section = page.partition("## Routes")[2].partition("\n## ")[0]
    relayed, _, others = section.partition("are not relayed")
    answered = ROUTES | set(re.findall(r"`(?:GET )?(/[^` ]*)`", relayed))
    names = [row.split("|")[1] for row in others.splitlines() if row.startswith("| `")]
    refused = set(re.findall(r"`(/[^` ]*)`", "".join(names)))
    assert {"/v1/realtime", "/v2/embed", "/classify", "/v1/score"} <= routes
    assert routes <= answered | refused
    assert not ROUTES & refused
    assert routes >= ROUTES


def test_vllm_has_the_metrics_that_the_page_recommends() -> None:
    """The installed vLLM declares each, with that kind."""
    series = series_of_vllm()
    for name, kind, _ in VLLM_FIRST:
        suffix = "_bucket" if kind == "histogram" else ""
        assert f"ray_vllm_{name}{suffix}" in series


def test_queries_name_existing_metrics_and_labels() -> None:
    """Every metric exists, with the labels that are selected or grouped by."""
    series = series_of_gateway() | series_of_vllm()
    queries = re.findall(r"\n\n((?:    .*\n)+)", QUERIES)
    assert len(queries) >= 10
    for query in queries:
        assert metrics_in(query)
        for metric in metrics_in(query):
            assert metric in series
        for line in query.splitlines():
            assert all(labels_in(line) <= series[metric] for metric in metrics_in(line))
