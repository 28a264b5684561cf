"""Continued answers of the simulated engine: the rest is what it would have generated anyway."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.deployments.engines.sim.simulated import (
    CHAT,
    COMPLETIONS,
    PLAIN_STEPS,
    Exchange,
    FakeTime,
    chat,
    completion,
    dispatched,
    engine_with,
)

TOKENIZE = "/tokenize"
OUTPUT_TOKENS = 12


@dataclass(frozen=True)
class Answered:
    """An engine's answer and its token counts."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


async def ask(path: str, body: dict[str, Any], answered_bytes: int = 0) -> Answered:
    """The answer of a fresh engine."""
    engine = engine_with(output_tokens=OUTPUT_TOKENS)
    headers = [dispatched(1, answered_bytes=answered_bytes)]
    return read(await Exchange(engine, path, body, headers=headers).finish())


def read(exchange: Exchange) -> Answered:
    """A whole answer from a response."""
    [choice], usage = exchange.json["choices"], exchange.json["usage"]
    return Answered(
        choice["text"] if "text" in choice else choice["message"]["content"],
        choice["finish_reason"],
        usage["prompt_tokens"],
        usage["completion_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
    )


async def tokens(body: dict[str, Any], answered_bytes: int = 0) -> int:
    """Number of tokens that `/tokenize` finds."""
    headers = [dispatched(1, answered_bytes=answered_bytes)]
    reply = (await Exchange(engine_with(), TOKENIZE, body, headers=headers).finish()).json
    assert len(reply["tokens"]) == reply["count"]
    count: int = reply["count"]
    return count


def continued_chat(said: str, **fields: object) -> dict[str, Any]:
    """Body of a chat request whose answer has begun."""
    body = chat("Tell me more.", **fields)
    body["messages"].append({"role": "assistant", "content": said})
    return {**body, "continue_final_message": True, "add_generation_prompt": False}


LIMITS = st.none() | st.integers(1, 20)


@given(limit=LIMITS, cut=st.integers(0, 200))
async def test_a_chat_is_continued_at_any_byte(limit: int | None, cut: int) -> None:
    """The part and the rest are the whole answer in text, end and tokens, at any cut."""
    whole = await ask(CHAT, chat("Tell me more.", max_tokens=limit))
    part = whole.text[: cut % len(whole.text)]
    said = await tokens(continued_chat(part)) - whole.prompt_tokens
    left = None if limit is None else limit - said
    rest = await ask(CHAT, continued_chat(part, max_tokens=left))
    assert part + rest.text == whole.text
    assert rest.finish_reason == whole.finish_reason
    assert rest.prompt_tokens == whole.prompt_tokens + said
    assert said + rest.completion_tokens == whole.completion_tokens


@given(limit=LIMITS, cut=st.integers(0, 200))
async def test_a_text_is_continued_at_any_byte(limit: int | None, cut: int) -> None:
    """A completion is continued likewise; the router says how much of the prompt is answer."""
    whole = await ask(COMPLETIONS, completion("Once upon", max_tokens=limit))
    part = whole.text[: cut % len(whole.text)]
    prompt, size = "Once upon" + part, len(part)
    said = await tokens({"prompt": prompt}, size) - whole.prompt_tokens if part else 0
    left = None if limit is None else limit - said
    rest = await ask(COMPLETIONS, completion(prompt, max_tokens=left), size)
    assert part + rest.text == whole.text
    assert rest.finish_reason == whole.finish_reason
    assert rest.prompt_tokens == whole.prompt_tokens + said
    assert said + rest.completion_tokens == whole.completion_tokens


@pytest.mark.parametrize("count", [1, 5, 6, OUTPUT_TOKENS - 1])
async def test_token_ids_are_continued(count: int) -> None:
    """A prompt of token ids ends with the ids that `/tokenize` gives for the sent text."""
    whole = await ask(COMPLETIONS, completion([5, 6, 7]))
    part = " ".join(whole.text.split(" ")[:count])
    engine = engine_with()
    said = (await Exchange(engine, TOKENIZE, {"prompt": part}).finish()).json["tokens"]
    rest = await ask(COMPLETIONS, completion([5, 6, 7, *said]), 4 * len(said))
    assert part + rest.text == whole.text
    assert rest.prompt_tokens == 3 + count


@pytest.mark.parametrize("count", [1, 4, 5, 6, OUTPUT_TOKENS])
async def test_an_answer_s_start_has_the_tokens_it_was_generated_with(count: int) -> None:
    """`/tokenize` counts one token per word, as in generation."""
    whole = await ask(CHAT, chat("Tell me more."))
    part = " ".join(whole.text.split(" ")[:count])
    assert await tokens({"prompt": part, "add_special_tokens": False}) == count
    assert await tokens({"prompt": part + " "}) == count
    before = await tokens(chat("Tell me more."))
    assert await tokens(continued_chat(part)) == before + count


@given(text=st.text(st.characters(codec="ascii"), max_size=30), count=st.integers(1, 8))
async def test_a_continued_chat_begins_with_the_tokens_of_the_chat(text: str, count: int) -> None:
    """The answer's tokens follow the conversation's, wherever the last of those ends."""
    body = chat(text)
    said = " ".join((await ask(CHAT, body)).text.split(" ")[:count])
    grown = {**body, "messages": [*body["messages"], {"role": "assistant", "content": said}]}
    continued = {**grown, "continue_final_message": True, "add_generation_prompt": False}
    before = (await Exchange(engine_with(), TOKENIZE, body).finish()).json["tokens"]
    after = (await Exchange(engine_with(), TOKENIZE, continued).finish()).json["tokens"]
    assert after[: len(before)] == before
    assert len(after) == len(before) + count


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat("Hello")),
        (CHAT, chat("Hello", tools=[{"type": "function", "function": {"name": "f"}}])),
        (COMPLETIONS, completion("abcdefghi")),
        (COMPLETIONS, completion("")),
        (COMPLETIONS, completion("Amber waves of grain")),
        (COMPLETIONS, completion("Amber birds carry")),
        (COMPLETIONS, completion("Amber")),
        (COMPLETIONS, completion("Am")),
    ],
)
async def test_tokenize_counts_prompts_as_the_usage_does(path: str, body: dict[str, Any]) -> None:
    """`/tokenize` and the usage of an answer agree."""
    assert await tokens(body) == (await ask(path, body)).prompt_tokens


async def test_a_complete_answer_continues_with_nothing() -> None:
    """Only the end is left, which counts no token but takes a step."""
    whole = await ask(CHAT, chat("Tell me more."))
    rest = await ask(CHAT, continued_chat(whole.text))
    assert (rest.text, rest.finish_reason, rest.completion_tokens) == ("", "stop", 0)
    time = FakeTime()
    engine = engine_with(time, output_tokens=OUTPUT_TOKENS, **PLAIN_STEPS)
    body = continued_chat(whole.text, stream=True)
    exchange = await Exchange(engine, CHAT, body, time).finish()
    deltas = [choice["delta"] for chunk in exchange.chunks for choice in chunk["choices"]]
    assert deltas == [{"role": "assistant", "content": "", "refusal": None}, {}]
    assert exchange.writes_s == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("said", ["Something else", "\N{WHITE SMILING FACE}"])
async def test_text_the_engine_would_not_generate_is_prompt(said: str) -> None:
    """A start that is not that of the answer counts as prompt."""
    body = continued_chat(said)
    plain = {"model": "m", "messages": body["messages"]}
    assert await ask(CHAT, body) == await ask(CHAT, plain)
    text = completion("Once upon" + said)
    assert await ask(COMPLETIONS, text, len(said.encode())) == await ask(COMPLETIONS, text)
    assert await ask(COMPLETIONS, text, 1) == await ask(COMPLETIONS, text)
    assert await ask(COMPLETIONS, text, 1000) == await ask(COMPLETIONS, text)


async def test_an_answer_that_a_client_started_continues() -> None:
    """If the client wrote the start itself, the answer to that is continued."""
    whole = await ask(CHAT, continued_chat("As I said, "))
    part = whole.text[:30]
    rest = await ask(CHAT, continued_chat("As I said, " + part), len(part))
    assert part + rest.text == whole.text
    assert rest.finish_reason == whole.finish_reason
    assert rest.completion_tokens < whole.completion_tokens


async def test_without_answered_bytes_nothing_is_continued() -> None:
    """A text is not taken for an answer only because it could be one."""
    said = (await ask(COMPLETIONS, completion(""))).text
    again = await ask(COMPLETIONS, completion(said))
    assert again.prompt_tokens == await tokens({"prompt": said}) == OUTPUT_TOKENS
    assert again.completion_tokens == OUTPUT_TOKENS


async def test_a_users_last_message_is_no_answer() -> None:
    """Only the assistant's message is continued."""
    fields = {"continue_final_message": True, "add_generation_prompt": False}
    assert await ask(CHAT, chat("Hello", **fields)) == await ask(CHAT, chat("Hello"))


async def test_a_generation_prompt_excludes_a_continuation() -> None:
    """As in vLLM, a request cannot both continue a message and start one."""
    for body in (chat(continue_final_message=True), {**continued_chat("A"), "n": 2}):
        body["add_generation_prompt"] = True
        exchange = await Exchange(engine_with(), CHAT, body).finish()
        assert (exchange.status, exchange.error_code) == (400, "invalid_value")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_continuation_finds_its_prompt_in_the_cache(path: str) -> None:
    """On the replica that began the answer, and on one that only had the prompt."""
    text = "x" * 400
    first = chat(text) if path == CHAT else completion(text)
    engine = engine_with(block_size=4, output_tokens=OUTPUT_TOKENS)
    whole = read(await Exchange(engine, path, first).finish())
    part = " ".join(whole.text.split(" ")[:6])
    if path == CHAT:
        message = {"role": "assistant", "content": part}
        body = {**chat(text), "continue_final_message": True, "add_generation_prompt": False}
        body["messages"].append(message)
        headers = []
    else:
        body, headers = completion(text + part), [dispatched(1, answered_bytes=len(part))]
    rest = read(await Exchange(engine, path, body, headers=headers).finish())
    assert part + rest.text == whole.text
    assert rest.cached_tokens >= whole.prompt_tokens - 4


async def test_a_next_turn_finds_a_continued_answer_in_the_cache() -> None:
    """An answer leaves the same blocks whether it was generated at once or in two parts."""
    whole = (await ask(CHAT, chat("Tell me more."))).text
    engine = engine_with(block_size=4, output_tokens=OUTPUT_TOKENS)
    part = " ".join(whole.split(" ")[:6])
    await Exchange(engine, CHAT, continued_chat(part)).finish()
    body = chat("Tell me more.")
    body["messages"] += [
        {"role": "assistant", "content": whole},
        {"role": "user", "content": "And then?"},
    ]
    turn = read(await Exchange(engine, CHAT, body).finish())
    before = len(f"user: Tell me more.\nassistant: {whole}\n")
    assert turn.cached_tokens == before // 16 * 4


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        ({"prompt": 5}, 400, "invalid_type"),
        ({"prompt": "a", "model": "other"}, 404, "model_not_found"),
    ],
)
async def test_invalid_tokenize_requests_are_rejected(body: object, status: int, code: str) -> None:
    """Errors have OpenAI's shape."""
    exchange = await Exchange(engine_with(), TOKENIZE, body).finish()
    assert (exchange.status, exchange.error_code) == (status, code)
