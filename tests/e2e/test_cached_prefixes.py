"""Requests go where their prefix is: two real vLLM replicas, and what their caches really held."""

import json

import pytest

from tests.e2e.twins import TWINS, deploy_twins
from tests.gateway_process import Document, GatewayProcess, wait_for

pytestmark = pytest.mark.e2e

Turn = tuple[str, int, int]
"""Its replica, and the cached tokens predicted and true."""
BLOCK_TOKENS = 128
"""Of vLLM's KV cache on the CPU."""
SYSTEM = [
    "You are a patient guide who knows how gateways, engines and caches work together. " * 30,
    "Answer in one short sentence, as a good librarian would, and never guess anything. " * 30,
]


@pytest.fixture(scope="module")
def twins(gateway: GatewayProcess, dev_config: Document) -> str:
    """A model with two replicas, beside the others."""
    deploy_twins(gateway, dev_config, 2)
    return TWINS


def turn(gateway: GatewayProcess, model: str, messages: list[Document]) -> Turn:
    """Have one turn of a conversation, and put its answer to the messages."""
    body = {"model": model, "messages": messages, "max_tokens": 24, "temperature": 0}
    with gateway.open("POST", "/v1/chat/completions", body) as response:
        answer = json.loads(response.read())
        assert response.status == 200, answer
        replica = response.headers["x-gateway-replica"]
        predicted = int(response.headers["x-gateway-cached-tokens"])
    messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
    return replica, predicted, answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_later_turns_land_where_their_prefix_is(gateway: GatewayProcess, twins: str) -> None:
    """Conversations and shared system prompts: the engines' own counts prove it."""
    conversations: list[list[Document]] = [
        [{"role": "system", "content": SYSTEM[number % 2]}] for number in range(6)
    ]
    first: list[Turn] = []
    later: list[Turn] = []
    homes: list[set[str]] = [set() for _ in conversations]
    for number in range(4):
        for messages, home in zip(conversations, homes, strict=True):
            question = f"Question {number}: what is prefix caching, and why does it matter? " * 4
            messages.append({"role": "user", "content": question})
            taken = turn(gateway, twins, messages)
            (later if number else first).append(taken)
            home.add(taken[0])
    errors = [abs(predicted - true) for _, predicted, true in first + later]

    assert [len(home) for home in homes] == [1] * len(homes)
    assert all(true >= BLOCK_TOKENS for _, _, true in later)
    # Whoever shares a system prompt finds it, but for the first of each.
    assert sum(true > 0 for _, _, true in first) == len(first) - len(SYSTEM)
    assert sum(error <= BLOCK_TOKENS for error in errors) >= 0.9 * len(errors), (first, later)


def test_a_dry_run_knows_what_vllm_holds(gateway: GatewayProcess, twins: str) -> None:
    """The replica's telemetry has reached the router, and nothing was sent to the engine."""
    messages = [{"role": "user", "content": "Tell me about prefix caching in vLLM. " * 40}]
    body = {"model": twins, "messages": messages}
    _, before = gateway.request("POST", "/gateway/route", body)
    replica, _, _ = turn(gateway, twins, [*messages])
    wait_for(
        lambda: gateway.request("POST", "/gateway/route", body)[1]["cached_tokens"] > BLOCK_TOKENS
    )
    _, after = gateway.request("POST", "/gateway/route", body)

    assert before["cached_tokens"] == 0
    assert after["replica"] == replica
    assert {candidate["cached_tokens"] for candidate in after["candidates"]} == {
        0,
        after["cached_tokens"],
    }


def test_an_agent_s_requests_are_known_by_what_is_rendered(
    gateway: GatewayProcess, twins: str
) -> None:
    """A header that changes, marks for caching and the order of fields leave the prefix known."""
    tool = {
        "name": "read",
        "description": "Reads a file. " * 40,
        "input_schema": {"type": "object"},
    }
    found: list[tuple[int, int]] = []
    for number in range(3):
        header = f"x-anthropic-billing-header: cc_version=2.1; cch={number:05d};"
        mark = {"cache_control": {"type": "ephemeral"}} if number % 2 else {}
        body = {
            "model": twins,
            "max_tokens": 8,
            "system": [
                {"type": "text", "text": header},
                {"type": "text", "text": "You are an agent who reads files. " * 40, **mark},
            ],
            "tools": [dict(reversed(tool.items())) | mark if number % 2 else tool],
            "messages": [{"role": "user", "content": f"Question {number}: what is in the file?"}],
            "thinking": {"type": "adaptive"},
        }
        with gateway.open("POST", "/v1/messages", body) as response:
            answer = json.loads(response.read())
            assert response.status == 200, answer
            predicted = int(response.headers["x-gateway-cached-tokens"])
        found.append((predicted, answer["usage"].get("cache_read_input_tokens") or 0))

    assert all(true >= BLOCK_TOKENS for _, true in found[1:])
    assert all(abs(predicted - true) <= BLOCK_TOKENS for predicted, true in found), found
