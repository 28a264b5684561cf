"""`engine_args` checked by the table of vLLM's arguments."""

import pytest

from gateway.config.engine_arguments import applicable_table, argument_table
from gateway.config.loader import parse_entry
from gateway.config.vllm import VllmEntry
from gateway.errors.startup import ConfigError

ENTRY = {"name": "m", "engine": "vllm", "source": "org/m"}


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (
            {"max_num_sequences": 4},
            "max_num_sequences: vLLM 0.32 has no such argument, did you mean `max_num_seqs`?",
        ),
        ({"bogus_xyz": 1}, "bogus_xyz: vLLM 0.32 has no such argument"),
        ({"max_num_seqs": "many"}, 'max_num_seqs: should be a whole number, found "many"'),
        ({"max_num_seqs": 1.5}, "max_num_seqs: should be a whole number, found 1.5"),
        ({"max_num_seqs": True}, "max_num_seqs: should be a whole number, found true"),
        (
            {"max_num_seqs": 0},
            "max_num_seqs: should be greater than or equal to 1, found 0",
        ),
        (
            {"gpu_memory_utilization": 1.5},
            "gpu_memory_utilization: should be less than or equal to 1, found 1.5",
        ),
        ({"enforce_eager": "yes"}, 'enforce_eager: should be true or false, found "yes"'),
        ({"enforce_eager": 1}, "enforce_eager: should be true or false, found 1"),
        ({"dtype": "bfloat17"}, 'dtype: found "bfloat17", did you mean `bfloat16`?'),
        ({"max_lora_rank": 17}, "max_lora_rank: found 17; known: 1, 8, 16"),
        ({"revision": ["a"]}, "revision: should be text, found a list"),
        ({"allowed_origins": "*"}, 'allowed_origins: should be a list, found "*"'),
        ({"speculative_config": 3}, "speculative_config: should be a mapping, found 3"),
        (
            {"speculative_config": {"mthod": "ngram"}},
            "speculative_config: unknown field `mthod`, did you mean `method`?",
        ),
        (
            {"cudagraph_capture_sizes": [1, "x"]},
            'cudagraph_capture_sizes: should be a whole number, or a list of such, found "x"',
        ),
        ({"cpu_offload_gb": float("nan")}, "cpu_offload_gb: should be a finite number"),
        ({"hf_overrides": {"a": [float("inf")]}}, "hf_overrides: should be a finite number"),
        (
            {"enable_auto_tool_choice": True},
            "enable_auto_tool_choice: needs `tool_call_parser`, the model's format of tool calls",
        ),
        (
            {"tool_call_parser": "hermez"},
            (
                'tool_call_parser: found "hermez": vLLM 0.32 has no such parser, did you mean'
                " `hermes`?"
            ),
        ),
        (
            {"reasoning_parser": "qwen4"},
            'reasoning_parser: found "qwen4": vLLM 0.32 has no such parser, did you mean `qwen3`?',
        ),
    ],
)
def test_a_wrong_argument_is_one_line(args: dict[str, object], problem: str) -> None:
    """It names the argument, what was found, and what would be right."""
    with pytest.raises(ConfigError) as caught:
        parse_entry({**ENTRY, "engine_args": args})
    assert str(caught.value).startswith(f'model "m": engine_args.{problem}')


@pytest.mark.parametrize(
    "args",
    [
        {"max_num_seqs": 64, "seed": None, "enforce_eager": False},
        {"max_num_seqs": "64", "max_num_batched_tokens": "8k", "cpu_offload_gb": 2},
        {"max_num_seqs": "env:COUNT", "dtype": "env:DTYPE", "tool_call_parser": "env:PARSER"},
        {"revision": 123, "optimization_level": 3, "hf_overrides": '{"a": 1}'},
        {"middleware": ["a.b"], "logits_processors": "a.b", "hf_token": True},
        {"tool_call_parser": "mine", "tool_parser_plugin": "mine.parsers"},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
    ],
)
def test_arguments_that_vllm_accepts_are_accepted(args: dict[str, object]) -> None:
    """In every form in which its command line reads them; a reference may be anything."""
    entry = parse_entry({**ENTRY, "engine_args": args})
    assert isinstance(entry, VllmEntry)
    assert entry.engine_args == args


def test_the_table_says_nothing_of_another_version() -> None:
    """Where another vLLM is installed, that one knows its arguments."""
    assert applicable_table("0.33.1") is None
    assert applicable_table("0.32.4+cpu") is applicable_table("") is argument_table()
