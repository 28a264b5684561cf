"""The comparison with real vLLM: its workload, how answers are read, what figures come of them."""

import io

import pytest
from rich.console import Console

from loadtests.comparison.conversations import conversations
from loadtests.comparison.machine import Machine
from loadtests.comparison.vllm_client import Asked, BrokenAnswer, Reading, Talk
from loadtests.comparison.vllm_contenders import PREFIX_ROUTER, gateway_entry, variants
from loadtests.comparison.vllm_report import Figures, Report, faster

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


LINES = [
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n',
    b"\n",
    b": a comment\n",
    b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n',
    b'data: {"choices":[{"delta":{"content":"lo"},"finish_reason":"stop"}]}\n',
    b'data: {"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":8}}}\n',
    b"data: [DONE]\n",
]


def test_an_answer_is_put_together() -> None:
    """Only text is a first token; the usage comes with the end."""
    reading = Reading()
    assert [reading.take(line) for line in LINES] == [False] * 3 + [True] * 2 + [False] * 2
    assert (reading.text, reading.is_done) == ("Hello", True)
    assert reading.usage is not None
    assert reading.usage.prompt_tokens_details is not None
    assert reading.usage.prompt_tokens_details.cached_tokens == 8


def test_an_error_event_is_no_answer() -> None:
    """It ends the conversation, with its reason."""
    with pytest.raises(BrokenAnswer, match="engine died"):
        Reading().take(b'data: {"error": {"message": "engine died"}}\n')


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
    assert figures.failures == 1


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
    assert "ray-serve-llm: 500: [no]" in text
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
