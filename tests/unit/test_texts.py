"""Prompts of simulated workloads as text."""

from gateway.simulation.trace import BLOCK_TOKENS, trace_request
from loadtests.texts import BYTES_PER_TOKEN, text

BLOCK_BYTES = BLOCK_TOKENS * BYTES_PER_TOKEN


def test_prompts_share_as_much_text_as_keys() -> None:
    """Equal keys are equal text, also in another prompt; what differs begins with its block."""
    first = text(trace_request(0, 3 * BLOCK_TOKENS, 1, [1, 2, 3]), "")
    second = text(trace_request(9, 3 * BLOCK_TOKENS, 5, [1, 2, 4]), "")

    assert first[: 2 * BLOCK_BYTES] == second[: 2 * BLOCK_BYTES]
    assert first[2 * BLOCK_BYTES :][:40] != second[2 * BLOCK_BYTES :][:40]


def test_a_prompt_is_as_long_as_its_tokens() -> None:
    """Four bytes a token, whatever the blocks and the tail come to, and all of them ASCII."""
    for tokens in (1, 100, BLOCK_TOKENS, BLOCK_TOKENS + 1, 5 * BLOCK_TOKENS - 1):
        prompt = text(trace_request(0, tokens, 1, range(5)), "the 17th request")

        assert len(prompt.encode()) == tokens * 4


def test_what_follows_the_last_block_is_the_requests_own() -> None:
    """The tail comes right after the blocks that are shared."""
    request = trace_request(0, 2 * BLOCK_TOKENS + 100, 1, [1, 2, 3])

    one, other = text(request, "request 1"), text(request, "request 2")

    assert one[: 2 * BLOCK_BYTES] == other[: 2 * BLOCK_BYTES]
    assert one[2 * BLOCK_BYTES :].startswith("request 1")
    assert other[2 * BLOCK_BYTES :].startswith("request 2")
