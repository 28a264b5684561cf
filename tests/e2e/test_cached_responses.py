"""Stored responses on real vLLM: a thread is told again, and its prefix is cached."""

import openai
import pytest

from tests.gateway_process import wait_for

pytestmark = pytest.mark.e2e

BLOCK_TOKENS = 128
"""Of vLLM's KV cache on the CPU."""
LONG = "You are a patient guide who knows how gateways, engines and caches work together. " * 30


def test_a_second_turn_answers_from_the_first(client: openai.OpenAI) -> None:
    """The model has been told the first turn, and its events say so, too."""
    first = client.responses.create(model="demo", input="Knock knock.", temperature=0)
    with client.responses.stream(
        model="demo", input="Cache.", previous_response_id=first.id, temperature=0
    ) as stream:
        second = stream.until_done().get_final_response()
    assert first.output_text == "Who is there?"
    assert second.output_text == "Cache who?"
    assert client.responses.retrieve(second.id).output_text == "Cache who?"
    assert second.previous_response_id == first.id


def test_a_second_turn_is_cached(client: openai.OpenAI) -> None:
    """The router knows the whole thread before it chooses, and the engine finds its prefix."""
    cached, predicted = [], []
    previous: str | None = None
    for number in range(3):
        raw = client.responses.with_raw_response.create(
            model="demo",
            input=f"{LONG} Question {number}: why does it matter?",
            previous_response_id=previous,
            max_output_tokens=16,
            temperature=0,
        )
        made = raw.parse()
        previous = made.id
        assert made.usage
        cached.append(made.usage.input_tokens_details.cached_tokens)
        predicted.append(int(raw.headers["x-gateway-cached-tokens"]))
    assert cached[1] >= BLOCK_TOKENS
    assert cached[2] > cached[1]
    assert all(abs(a - b) <= BLOCK_TOKENS for a, b in zip(cached, predicted, strict=True)), (
        cached,
        predicted,
    )


def test_a_response_in_the_background_ends(client: openai.OpenAI) -> None:
    """It is polled to its end."""
    made = client.responses.create(model="demo", input="Count to ten.", background=True)

    def has_ended() -> bool:
        return client.responses.retrieve(made.id).status == "completed"

    wait_for(has_ended)
    made = client.responses.retrieve(made.id)
    assert (made.status, made.output_text) == ("completed", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10.")


def test_a_response_in_the_background_is_followed(client: openai.OpenAI) -> None:
    """Its events come through router and State to the last one, with its answer."""
    events = list(
        client.responses.create(
            model="demo", input="Count to ten.", background=True, stream=True, timeout=60
        )
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
