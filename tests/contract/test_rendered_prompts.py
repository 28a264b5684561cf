"""Prefix keys against vLLM's own rendering: they are alike where prompts are, and only there."""

import pytest

from tests.contract.with_vllm import run_module

CONVERSATIONS = "60"
SEED = "7"
LAYOUTS = {
    "own": "has_hermes_calls=True, reasoning='never'",
    "system-first": "separator='\\n', developers='joined'",
    "tools-first": "has_tools_first=True",
}
"""Part of what is found out of each template."""


@pytest.mark.parametrize("template", LAYOUTS)
def test_keys_stand_for_what_vllm_renders(template: str) -> None:
    """Conversations in three APIs and any spelling, and odd ones, share keys as prompts."""
    ended = run_module("tests.contract.rendering", SEED, CONVERSATIONS, template)
    assert ended.returncode == 0, ended.stderr[-2000:]

    lines = ended.stdout.splitlines()
    assert [line[:2000] for line in lines if line.startswith("WRONG")] == []
    assert any(line.startswith("LAYOUT") and LAYOUTS[template] in line for line in lines)
    pairs = next(line for line in lines if line.startswith("PAIRS"))
    assert int(pairs.removeprefix("PAIRS")) > 500
    odd = next(line for line in lines if line.startswith("ODD"))
    assert int(odd.removeprefix("ODD")) > 300
