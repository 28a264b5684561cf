"""The comparison with real vLLM: its workload, who breaks down, what figures come of answers."""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from loadtests import targets
from loadtests.comparison.machine import Machine
from loadtests.comparison.vllm.client import UNASKED, Asked, Talk, talk
from loadtests.comparison.vllm.command import Play
from loadtests.comparison.vllm.contenders import PREFIX_ROUTER, gateway_entry, variants
from loadtests.comparison.vllm.conversations import conversations
from loadtests.comparison.vllm.report import Figures, Report, failures, faster
from loadtests.launch import MODEL
from loadtests.targets import Target

MACHINE = Machine(cpus=2, memory_gib=8, system="Linux", python="3.11", date="2026-01-01")


def test_conversations_repeat_with_their_seed() -> None:
    """Every contender of a round is asked the same."""
    assert conversations(10, 4, seed=1) == conversations(10, 4, seed=1)


def test_conversations_share_few_prompts() -> None:
    """Each of them long, and all questions different."""
    held = conversations(40, 3, seed=1)
    systems = {conversation.system for conversation in held}
    questions = [question for conversation in held for question in conversation.questions]
    assert 1 < len(systems) <= 4
    assert min(map(len, systems)) > 3000
    assert len(set(questions)) == 40 * 3


def test_rounds_share_no_prefix() -> None:
    """What a round leaves in a cache helps nobody in the next one."""
    first, second = (conversations(1, 1, seed=seed)[0].system for seed in (11, 22))
    common = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert common < 16


def asked(ttft_s: float, cached_tokens: int) -> Asked:
    """An answered request with a prompt of 100 tokens."""
    return Asked(ttft_s=ttft_s, e2e_s=2 * ttft_s, prompt_tokens=100, cached_tokens=cached_tokens)


def test_failures_count_as_nothing_else() -> None:
    """Not as fast requests, not as misses."""
    talk = Talk(2.0, [asked(0.1, 80), asked(0.3, 0), Asked(failure="500: no")])
    figures = Figures.of(talk)
    assert figures.requests_per_s == 1
    assert figures.hit_rate == pytest.approx(0.4)
    assert figures.e2e_mean_ms == pytest.approx(400)
    assert (figures.failures, figures.asked) == (1, 3)


def test_who_failed_is_named_with_its_reasons() -> None:
    """The most frequent first; who did not fail is not."""
    broken = [asked(0.1, 0), *[Asked(failure="500: no")] * 2, Asked(failure=UNASKED)]
    block = {"gateway": [Talk(1.0, [asked(0.1, 0)])], "ray-serve-llm": [Talk(1.0, broken)]}
    assert failures(block) == [
        "ray-serve-llm failed 3 of 4 requests; its figures are those of the others:",
        "  2 times: 500: no",
        f"  1 times: {UNASKED}",
    ]


@pytest.fixture(scope="module")
def engine() -> Iterator[Target]:
    """One that answers at once."""
    with targets.engine() as started:
        yield started


async def test_conversations_are_held(engine: Target) -> None:
    """Every question is asked, with all before it."""
    held = conversations(3, 2, seed=1)
    found = await talk(engine.port, MODEL, held, at_a_time=2)
    assert [each.failure for each in found.asked] == [""] * 6
    assert all(0 < each.ttft_s <= each.e2e_s for each in found.asked)
    first, second = sorted(each.prompt_tokens for each in found.asked)[::3][:2]
    assert 0 < first < second


async def test_after_a_failure_the_rest_of_a_conversation_has_failed_too(engine: Target) -> None:
    """Or who fails early would fail less."""
    found = await talk(engine.port, "another", conversations(1, 3, seed=1), at_a_time=1)
    assert "404" in found.asked[0].failure
    assert [each.failure for each in found.asked[1:]] == [UNASKED] * 2


@pytest.mark.parametrize("broken", ["gateway", "ray-serve-llm"])
def test_who_breaks_down_is_the_one_that_is_missing(engine: Target, broken: str) -> None:
    """Whichever of the pair it is; rounds of one alone do not count."""
    carriers = {"gateway": engine.engine_processes, "ray-serve-llm": engine.engine_processes}
    carriers[broken] = tuple
    pair = [
        Target(name, engine.port, running, is_started_here=False)
        for name, running in carriers.items()
    ]
    play = Play(guests=1, count=1, questions=1, progress=Console(quiet=True))
    talks = play.block(pair, rounds=2, end_s=0, block=0)
    assert talks == {"gateway": [], "ray-serve-llm": []}
    assert play.missing == {broken: "warming up: its processes have ended"}


def test_a_turn_in_which_all_failed_has_figures_too() -> None:
    """All zero, and nobody is faster than it."""
    figures = Figures.of(Talk(2.0, [Asked(failure="500: no")]))
    assert (figures.requests_per_s, figures.ttft_p50_ms, figures.failures) == (0, 0, 1)
    assert faster([figures], [figures]).median == 0


def test_the_table_tells_ratios_failures_and_who_is_missing() -> None:
    """For a pair that took turns."""
    report = Report(
        machine=MACHINE,
        workload="few conversations",
        versions={},
        missing={"ray-serve-llm prefix-aware": "out of memory"},
        blocks=[
            {
                "gateway": [Talk(1.0, [asked(0.1, 50)])],
                "ray-serve-llm": [Talk(1.0, [asked(0.25, 50), Asked(failure="500: [no]")])],
            }
        ],
    )
    console = Console(width=170, record=True, file=io.StringIO())
    report.print(console)
    text = console.export_text()
    assert "2.50" in text
    assert "1 of 2" in text
    assert "1 times: 500: [no]" in text
    assert "ray-serve-llm prefix-aware skipped: out of memory" in text


def test_all_contenders_run_the_same_engines() -> None:
    """Ray's variants differ in how they route, and in nothing else."""
    default, prefix = (dict(variant.llm_config) for variant in variants(2))
    router = prefix["deployment_config"].pop("request_router_config")
    assert router == {"request_router_class": PREFIX_ROUTER}
    assert default == prefix
    ours = gateway_entry(2)
    assert ours["replicas"] == default["deployment_config"]["num_replicas"]
    assert ours["engine_args"].items() <= default["engine_kwargs"].items()
    assert ours["env"].items() <= variants(2)[0].variables.items()
