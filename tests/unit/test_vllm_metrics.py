"""vLLM's metrics, arguments and names, as we use them: with vLLM, without an engine."""

import subprocess
import sys

import pytest

SCRIPT = """
import types
from vllm.v1.metrics.buckets import histogram_buckets
from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats
from deployments.engines.vllm.arguments import DEFAULTS, parse_arguments
from deployments.engines.vllm.engine import first_token_of
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
print("first token:", first_token_of(object(), "x"))
try:
    AliasedModels.adopt(types.SimpleNamespace(lora_requests={}), LoadedLoras(), None)
except UnsupportedVersion as error:
    print(error)
"""


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the script says, in a process of its own: importing vLLM changes much."""
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return ended.stdout.splitlines()


def test_errors_of_vllm_s_metrics_do_not_reach_the_engine(said: list[str]) -> None:
    """What vLLM's logger raises, and would end vLLM's output loop, ends in ours."""
    assert [line for line in said if line in {"vLLM's own raises", "ours goes on"}] == [
        "vLLM's own raises",
        "ours goes on",
    ]


def test_models_of_any_length_have_the_same_buckets(said: list[str]) -> None:
    """Ray's agent drops what has other buckets than the first engine on its node."""
    assert "the same" in said


def test_without_vllm_s_request_states_a_first_token_is_unknown(said: list[str]) -> None:
    """Routers then learn of a request without streaming at its end."""
    assert "first token: None" in said


def test_models_that_cannot_be_adopted_name_what_is_missing(said: list[str]) -> None:
    """A start with another version of vLLM says which attribute it lacks, and what is supported."""
    assert "has no `is_base_model`: this gateway supports vLLM 0.32" in said[-1]
