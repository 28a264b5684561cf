"""The comparison with real vLLM: its workload, failures, and figures."""

import io
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from loadtests import targets
from loadtests.comparison.shared import Machine
from loadtests.comparison.vllm import PREFIX_ROUTER, ConversationRounds, gateway_entry, ray_variants
from loadtests.comparison.vllm_conversations import (
    NOT_SENT,
    MeasuredRequest,
    RoundResult,
    conversations,
    run_conversations,
)
from loadtests.comparison.vllm_report import Figures, VllmReport, failures, faster
from loadtests.launch import MODEL
from loadtests.targets import LoadTarget

MACHINE = Machine(cpus=2, memory_gib=8, system="Linux", python="3.11", date="2026-01-01")


def test_conversations_share_a_few_long_system_prompts() -> None:
    """They follow from their seed, and all questions are different."""
    held = conversations(40, 3, seed=1)
    systems = {conversation.system for conversation in held}
    questions = [question for conversation in held for question in conversation.questions]

    assert conversations(40, 3, seed=1) == held
    assert 1 < len(systems) <= 4
    assert min(map(len, systems)) > 3000
    assert len(set(questions)) == 40 * 3


def test_rounds_share_no_prefix() -> None:
    """Caches filled in one round are of no use in the next one."""
    first, second = (conversations(1, 1, seed=seed)[0].system for seed in (11, 22))
    common = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert common < 16


def request(ttft_s: float, cached_tokens: int) -> MeasuredRequest:
    """An answered request with a prompt of 100 tokens."""
    return MeasuredRequest(
        ttft_s=ttft_s, e2e_s=2 * ttft_s, prompt_tokens=100, cached_tokens=cached_tokens
    )


def test_failed_requests_count_only_as_failures() -> None:
    """Not as fast requests, not as misses; a round in which all failed has figures of zero."""
    figures = Figures.of(
        RoundResult(2.0, [request(0.1, 80), request(0.3, 0), MeasuredRequest(failure="x")])
    )
    assert figures.requests_per_s == 1
    assert figures.hit_rate == pytest.approx(0.4)
    assert figures.e2e_mean_ms == pytest.approx(400)
    assert (figures.failures, figures.asked) == (1, 3)

    nothing = Figures.of(RoundResult(2.0, [MeasuredRequest(failure="500: no")]))
    assert (nothing.requests_per_s, nothing.ttft_p50_ms, nothing.failures) == (0, 0, 1)
    assert faster([nothing], [nothing]).median == 0


def test_failures_are_listed_with_their_reasons() -> None:
    """The most frequent first; contenders without failures are left out."""
    broken = [
        request(0.1, 0),
        *[MeasuredRequest(failure="500: no")] * 2,
        MeasuredRequest(failure=NOT_SENT),
    ]
    good = [RoundResult(1.0, [request(0.1, 0)])]
    block = {"gateway": good, "ray-serve-llm": [RoundResult(1.0, broken)]}
    assert failures(block) == [
        "ray-serve-llm failed 3 of 4 requests; its figures are those of the others:",
        "  2 times: 500: no",
        f"  1 times: {NOT_SENT}",
    ]


@pytest.fixture(scope="module")
def engine() -> Iterator[LoadTarget]:
    """A simulated engine that answers at once."""
    with targets.engine() as started:
        yield started


async def test_every_question_is_sent_with_the_conversation_before_it(engine: LoadTarget) -> None:
    """Prompts grow, and every answer is timed."""
    held = conversations(3, 2, seed=1)
    found = await run_conversations(engine.port, MODEL, held, concurrency=2)
    assert [each.failure for each in found.asked] == [""] * 6
    assert all(0 < each.ttft_s <= each.e2e_s for each in found.asked)
    first, second = sorted(each.prompt_tokens for each in found.asked)[::3][:2]
    assert 0 < first < second


async def test_after_a_failure_the_rest_of_a_conversation_has_failed_too(
    engine: LoadTarget,
) -> None:
    """Or a contender that fails early would fail less."""
    found = await run_conversations(engine.port, "another", conversations(1, 3, seed=1), 1)
    assert "404" in found.asked[0].failure
    assert [each.failure for each in found.asked[1:]] == [NOT_SENT] * 2


@pytest.mark.parametrize("broken", ["gateway", "ray-serve-llm"])
def test_a_contender_that_fails_ends_the_block(engine: LoadTarget, broken: str) -> None:
    """It is named, whichever of the pair it is; rounds of one alone do not count."""
    carriers = {"gateway": engine.engine_processes, "ray-serve-llm": engine.engine_processes}
    carriers[broken] = tuple
    pair = {
        name: LoadTarget(name, engine.port, running, is_started_here=False)
        for name, running in carriers.items()
    }
    results, dropped = ConversationRounds(1, 1, 1).play(pair, 2, 0, 0, Console(quiet=True))
    assert results == {"gateway": [], "ray-serve-llm": []}
    assert dropped == {broken: f"warming up, {broken}: its processes have ended"}


def test_the_table_has_ratios_failures_and_the_missing() -> None:
    """For a pair that took turns; reports of earlier runs can be read."""
    ours = RoundResult(1.0, [request(0.1, 50)])
    theirs = RoundResult(1.0, [request(0.25, 50), MeasuredRequest(failure="500: [no]")])
    report = VllmReport(
        machine=MACHINE,
        workload="few conversations",
        versions={},
        missing={"ray-serve-llm prefix-aware": "out of memory"},
        blocks=[{"gateway": [ours], "ray-serve-llm": [theirs]}],
    )
    console = Console(width=170, record=True, file=io.StringIO())
    report.print(console)
    text = console.export_text()
    for words in ("2.50", "1 of 2", "1 times: 500: [no]", "prefix-aware skipped: out of memory"):
        assert words in text

    kept = Path(targets.__file__).parent / "results" / "vllm.json"
    assert msgspec.json.decode(kept.read_bytes(), type=VllmReport).blocks


def test_all_contenders_run_the_same_engines() -> None:
    """Ray's variants differ in how they route, and in nothing else."""
    default, prefix = (dict(variant.llm_config) for variant in ray_variants(2))
    router = prefix["deployment_config"].pop("request_router_config")
    assert router == {"request_router_class": PREFIX_ROUTER}
    assert default == prefix
    ours = gateway_entry(2)
    assert ours["replicas"] == default["deployment_config"]["num_replicas"]
    assert ours["engine_args"].items() <= default["engine_kwargs"].items()
    assert ours["env"].items() <= ray_variants(2)[0].variables.items()
