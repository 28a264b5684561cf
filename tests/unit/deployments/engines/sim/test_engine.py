"""The simulated engine: OpenAI's shapes, deterministic words, predictable timing."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import ValidationError

from deployments.engines.server import EngineServer
from deployments.engines.sim.core import Clock
from deployments.engines.sim.engine import SimulatedEngine
from deployments.engines.sim.words import words
from gateway.config.sim import SimEntry, Simulation
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.update import Finished, Load
from tests.unit.conftest import PATIENCE_S
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


async def ask(path: str, body: object, **simulation: float) -> Exchange:
    """The answer of an instant engine."""
    return await Exchange(engine_with(None, **simulation), path, body).finish()


async def texts(body: dict[str, Any]) -> list[str]:
    """Texts of a completion's choices."""
    return [choice["text"] for choice in (await ask(COMPLETIONS, body)).json["choices"]]


async def test_a_chat_stream_has_openais_chunks() -> None:
    """A role, one delta per token, an empty delta with the finish reason, and `[DONE]`."""
    chunks = (await ask(CHAT, chat(stream=True, max_tokens=2))).chunks
    whole = (await ask(CHAT, chat(max_tokens=2))).json["choices"][0]["message"]["content"]
    first, second = whole.split(" ")
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
        for delta, reason in [
            ({"role": "assistant", "content": "", "refusal": None}, None),
            ({"content": first}, None),
            ({"content": f" {second}"}, None),
            ({}, "length"),
        ]
    ]
    assert len({chunk["id"] for chunk in chunks}) == 1
    for chunk in chunks:
        assert chunk["id"].startswith("chatcmpl-")
        assert (chunk["object"], chunk["model"]) == ("chat.completion.chunk", "m")
        assert chunk["system_fingerprint"] == "simulated"
        assert "usage" not in chunk
    assert [chunk.get("service_tier") for chunk in chunks] == [None, None, None, "default"]


async def test_a_completion_stream_has_openais_chunks() -> None:
    """One text per token, then an empty one with the finish reason."""
    chunks = (await ask(COMPLETIONS, completion("x", stream=True, max_tokens=2))).chunks
    [whole] = await texts(completion("x", max_tokens=2))
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["finish_reason"] for choice in choices] == [None, None, "length"]
    assert "".join(choice["text"] for choice in choices) == whole


async def test_a_stream_has_usage_on_request() -> None:
    """With `include_usage` the last chunk has it, and all others have null."""
    body = chat(stream=True, max_tokens=3, stream_options={"include_usage": True})
    *others, last = (await ask(CHAT, body)).chunks
    assert {chunk["usage"] for chunk in others} == {None}
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def test_a_response_that_is_not_streamed_is_whole() -> None:
    """Without `stream` it is one JSON object, marked as simulated."""
    exchange = await ask(CHAT, chat(max_tokens=4))
    reply = exchange.json
    content = reply["choices"][0]["message"].pop("content")
    assert len(content.split(" ")) == 4
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert reply["usage"]["total_tokens"] == 3 + 4
    assert reply["system_fingerprint"] == "simulated"
    assert reply["service_tier"] == "default"
    assert exchange.headers[b"x-simulated"] == b"1"


async def test_the_tier_is_the_one_that_is_served() -> None:
    """What a client asks for where nobody is authenticated, and what routers say."""
    asked = chat(service_tier="flex", max_tokens=1)
    assert (await ask(CHAT, asked)).json["service_tier"] == "flex"
    *_, last = (await ask(CHAT, {**asked, "stream": True})).chunks
    assert last["service_tier"] == "flex"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"input": "Hello"}, chat("Hello")),
        ({"input": [{"role": "user", "content": "Hello"}]}, chat("Hello")),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]},
            chat("Hello"),
        ),
        (
            {"input": "Hello", "instructions": "Be brief."},
            chat(messages=[{"role": "system", "content": "Be brief."}, *chat()["messages"]]),
        ),
    ],
)
async def test_a_response_s_input_is_counted(
    body: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A response of the same words has as many tokens as a chat."""
    counted = (await ask("/v1/responses/input_tokens", {"model": "m", **body})).json
    usage = (await ask(CHAT, expected)).json["usage"]
    assert counted == {"object": "response.input_tokens", "input_tokens": usage["prompt_tokens"]}


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        (CHAT, {"model": "m"}, "messages", "missing_required_parameter"),
        (COMPLETIONS, {"model": "m"}, "prompt", "missing_required_parameter"),
        (CHAT, chat(messages=[{"content": "x"}]), "messages[0].role", "missing_required"),
        (CHAT, chat(messages="x"), "messages", "invalid_type"),
        (CHAT, chat(max_tokens="x"), "max_tokens", "invalid_type"),
        (CHAT, chat(max_tokens=0), "max_tokens", "integer_below_min_value"),
        (CHAT, chat(n=0), "n", "integer_below_min_value"),
        (CHAT, chat(n=10**6), "n", "invalid_value"),
        (CHAT, [], None, "invalid_value"),
        (CHAT, chat(max_tokens=10**6), "messages", "context_length_exceeded"),
        (COMPLETIONS, completion("x", max_tokens=10**6), "prompt", "context_length_exceeded"),
        ("/v1/responses/input_tokens", {"model": "m"}, "input", "missing_required_parameter"),
    ],
)
async def test_mistakes_have_openais_codes(
    path: str, body: object, param: str | None, code: str
) -> None:
    """With the field that is wrong, as the real engine has them."""
    exchange = await ask(path, body)
    error = exchange.json["error"]
    assert exchange.status == 400
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert error["code"].startswith(code)


@pytest.mark.parametrize(
    ("fields", "length", "reason"),
    [
        ({}, 8, "stop"),
        ({"max_tokens": 5}, 5, "length"),
        ({"max_completion_tokens": 3}, 3, "length"),
        ({"max_completion_tokens": 3, "max_tokens": 5}, 3, "length"),
        ({"max_tokens": None}, 8, "stop"),
    ],
)
async def test_an_answer_has_the_requested_length(
    fields: dict[str, Any], length: int, reason: str
) -> None:
    """The client's limit is its length; without one the entry's is, and it ends with `stop`."""
    reply = (await ask(CHAT, chat(**fields), output_tokens=8)).json
    assert reply["usage"]["completion_tokens"] == length
    assert reply["choices"][0]["finish_reason"] == reason


async def test_an_answer_ends_where_the_context_does() -> None:
    """Without a limit, the answer takes the room that is left."""
    reply = (await ask(CHAT, chat(), output_tokens=64, max_model_len=10)).json
    assert reply["usage"] == {**reply["usage"], "prompt_tokens": 3, "completion_tokens": 7}
    assert reply["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("abcd", 1),
        ("abcde", 2),
        ("äö", 1),
        ("äöü", 2),
        ("", 1),
        ([5, 6, 7], 3),
        (["abcde", "x"], 3),
    ],
)
async def test_prompt_tokens_are_estimated_from_bytes(prompt: object, tokens: int) -> None:
    """Four bytes of UTF-8 are a token, rounded up for each prompt; token ids are counted."""
    reply = (await ask(COMPLETIONS, completion(prompt, max_tokens=1))).json
    assert reply["usage"]["prompt_tokens"] == tokens


async def test_the_same_prompt_has_the_same_answer() -> None:
    """In a list, in another engine and as a stream."""
    [one] = await texts(completion("one", max_tokens=10))
    [two] = await texts(completion("two", max_tokens=10))
    assert one != two
    assert await texts(completion(["one", "two"], max_tokens=10)) == [one, two]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [2, 1]),
        ("a", "b"),
        ([[1], [2]], [[3], [4]]),
    ],
)
async def test_another_prompt_has_another_answer(one: object, other: object) -> None:
    """Whether it is text or token ids."""
    assert await texts(completion(one)) != await texts(completion(other))


async def test_the_whole_conversation_determines_the_answer() -> None:
    """Roles, earlier messages, content parts and tools all change the answer."""
    hello = {"role": "user", "content": "Hello"}
    bodies: list[dict[str, Any]] = [
        {"messages": [hello]},
        {"messages": [{"role": "system", "content": "Hello"}]},
        {"messages": [{"role": "system", "content": "Be brief."}, hello]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {"messages": [hello], "tools": [{"type": "function", "function": {"name": "f"}}]},
    ]
    replies = [(await ask(CHAT, {"model": "m", **body})).json for body in bodies]
    assert len({reply["choices"][0]["message"]["content"] for reply in replies}) == len(bodies)


async def test_content_parts_are_text_like_any_other() -> None:
    """A message in parts gets the same answer as one string."""
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    body = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    in_parts, in_one = (await ask(CHAT, body)).json, (await ask(CHAT, chat("Hello"))).json
    assert in_parts["choices"] == in_one["choices"]


@pytest.mark.parametrize("stream", [False, True])
async def test_n_choices_are_generated(stream: bool) -> None:
    """The `n` choices of each prompt differ, are numbered, and count in the usage."""
    body = completion(["a", "b"], n=2, max_tokens=9, stream=stream)
    body["stream_options"] = {"include_usage": True}
    exchange = await ask(COMPLETIONS, body)
    chunks = exchange.chunks if stream else [exchange.json]
    answers: dict[int, str] = {}
    for choice in itertools.chain.from_iterable(chunk["choices"] for chunk in chunks):
        answers[choice["index"]] = answers.get(choice["index"], "") + choice["text"]
    assert sorted(answers) == [0, 1, 2, 3]
    assert len(set(answers.values())) == 4
    assert answers[0] == (await texts(completion("a", max_tokens=9)))[0]
    assert answers[2] == (await texts(completion("b", max_tokens=9)))[0]
    usage = chunks[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2, 36)


def test_answers_are_sentences() -> None:
    """Every sentence starts with a capital and ends with a full stop after five words."""
    text = "".join(itertools.islice(words(seed=1), 40))
    sentences = text.split(". ")
    assert len(sentences) == 8
    for sentence in sentences:
        assert sentence.istitle() is False
        assert sentence[0].isupper()
        assert len(sentence.split()) == 5
        assert sentence.removesuffix(".").replace(" ", "").isalpha()


async def test_tokens_are_ready_at_the_times_of_the_model() -> None:
    """The first token is ready after the prompt, each further one a step later."""
    time = FakeTime()
    speeds = {"step_s": 0.5, "step_s_per_prefill_token": 0.01, "step_s_per_sequence": 0.25}
    body = completion("x" * 400, stream=True, max_tokens=4)
    exchange = await Exchange(engine_with(time, **speeds), COMPLETIONS, body, time).finish()
    # Tokens, then what ends the stream, which takes no time of its own.
    assert exchange.writes_s == [1.5, 2.25, 3.0, 3.75, 3.75, 3.75]


async def test_time_may_run_faster_than_the_clock() -> None:
    """At a time scale of ten, everything takes a tenth of the time."""
    time = FakeTime()
    engine = engine_with(time, time_scale=10, **PLAIN_STEPS)
    body = completion("abcd", stream=True, max_tokens=3)
    exchange = await Exchange(engine, COMPLETIONS, body, time).finish()
    assert exchange.writes_s[:3] == [0.1, 0.2, 0.3]


async def test_a_step_decodes_every_sequence() -> None:
    """Two requests at once are prefilled in one step and get their tokens together."""
    time = FakeTime()
    engine = engine_with(time, **PLAIN_STEPS)
    body = completion("abcd", stream=True, max_tokens=2)
    exchanges = [Exchange(engine, COMPLETIONS, body, time) for _ in range(2)]
    for exchange in exchanges:
        await exchange.finish()
    assert [exchange.writes_s[:2] for exchange in exchanges] == [[1.0, 2.0], [1.0, 2.0]]


async def test_long_prompts_are_read_in_chunks() -> None:
    """A prompt larger than a step's budget takes several; other sequences decode meanwhile."""
    time = FakeTime()
    engine = engine_with(time, step_tokens=10, max_sequences=2, **PLAIN_STEPS)
    short = Exchange(engine, COMPLETIONS, completion("abcd", stream=True, max_tokens=5), time)
    await time.pass_s(0.5)
    long = Exchange(engine, COMPLETIONS, completion("x" * 4 * 27, stream=True, max_tokens=1), time)
    await long.finish()
    # From its second step on there is one decoding: nine tokens are left for the prompt.
    assert short.writes_s[:4] == [1.0, 2.0, 3.0, 4.0]
    assert long.writes_s[0] == 4.0


async def test_sequences_wait_for_a_slot_in_order() -> None:
    """Those that do not fit wait, first come first served."""
    time = FakeTime()
    engine = engine_with(time, max_sequences=1, **PLAIN_STEPS)
    body = completion("abcd", max_tokens=2)
    exchanges = [Exchange(engine, COMPLETIONS, body, time) for _ in range(3)]
    for exchange in exchanges:
        await exchange.finish()
    assert [exchange.writes_s for exchange in exchanges] == [[2.0], [4.0], [6.0]]


async def test_waiting_requests_start_by_priority() -> None:
    """Waiting requests start in the order of their routers' priorities."""
    time = FakeTime()
    engine = engine_with(time, max_sequences=1, **PLAIN_STEPS)
    exchanges = [
        Exchange(engine, COMPLETIONS, completion("abcd", max_tokens=1), time, headers=[header])
        for header in (dispatched(1), dispatched(2, priority=9), dispatched(3, priority=-9))
    ]
    for exchange in exchanges:
        await exchange.finish()
    assert [exchange.writes_s for exchange in exchanges] == [[2.0], [3.0], [1.0]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("patience_s", "freed_s"), [(0.5, 1.0), (3.5, 4.0)])
async def test_a_client_that_leaves_frees_its_slot(
    stream: bool, patience_s: float, freed_s: float
) -> None:
    """Its work ends with the current step, in the prefill or later."""
    time = FakeTime()
    engine = engine_with(time, max_sequences=1, **PLAIN_STEPS)
    first = Exchange(engine, COMPLETIONS, completion("abcd", max_tokens=99, stream=stream), time)
    second = Exchange(engine, COMPLETIONS, completion("abcd", max_tokens=1), time)
    await time.pass_s(patience_s)
    first.leave()
    await first.finish()
    assert time.now_s == patience_s
    await second.finish()
    assert second.writes_s == [freed_s + 1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leaves_queue", [False, True])
async def test_a_client_that_leaves_frees_its_cache(stream: bool, leaves_queue: bool) -> None:
    """Its tokens are free at once, and routers learn so; those of others are not."""
    time = FakeTime()
    engine = engine_with(time, max_sequences=1, kv_tokens=1024, max_model_len=1024, **PLAIN_STEPS)
    body = completion("x" * 400, max_tokens=99, stream=stream)
    running, queued = (Exchange(engine, COMPLETIONS, body, time) for _ in range(2))
    await time.pass_s(2.5)
    both = latest_update(engine)[2]
    free = 1024 - 208
    assert both == Load(running=1, waiting=1, yielding=1, pending_tokens=100, free_tokens=free)
    leaver = queued if leaves_queue else running
    leaver.leave()
    await leaver.finish()
    assert time.now_s == 2.5
    alone = latest_update(engine)[2]
    assert alone is not None
    assert alone.running + alone.waiting == 1
    assert alone.free_tokens == (1024 - 208 if leaves_queue else 1024)
    await time.pass_s(2)
    assert engine.tracker.load == Load(
        running=1, waiting=0, pending_tokens=0, free_tokens=1024 - 208
    )
    await engine.stop()


async def test_free_tokens_count_what_is_shared_once() -> None:
    """Requests with the same prefix share its tokens; unused cached ones are free."""
    time = FakeTime()
    engine = engine_with(time, kv_tokens=1024, max_model_len=1024, **PLAIN_STEPS)
    body = completion("x" * 640, max_tokens=9)
    await Exchange(engine, COMPLETIONS, body, time).finish()
    free: list[int] = []
    for _ in range(2):
        Exchange(engine, COMPLETIONS, body, time)
        await time.pass_s(1.5)
        free.append(engine.tracker.load.free_tokens)
    # The last block of the prompt is computed again, and the answer has one of its own.
    assert free == [1024 - 176, 1024 - 176 - 16]
    await engine.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_that_closes_ends_the_work(stream: bool) -> None:
    """Over a real connection, running or queued, streaming or not."""
    engine = engine_with(FakeTime(), max_sequences=1)
    server = EngineServer(engine, "127.0.0.1")
    await server.start()
    news = asyncio.Event()
    engine.tracker.add_listener(news.set)

    async def until(requests: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while engine.tracker.load.running + engine.tracker.load.waiting != requests:
                news.clear()
                await news.wait()

    url = f"http://{server.host}:{server.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=server.key, max_retries=0) as sdk:
        calls: list[asyncio.Task[Any]] = []
        for _ in range(2):
            call = sdk.completions.create(model="m", prompt="x" * 400, stream=stream)
            calls.append(asyncio.create_task(call))
            await until(len(calls))
        for left, task in enumerate(calls, start=1):
            if stream:  # it has begun; only its tokens are waited for
                await (await task).close()
            task.cancel()
            await until(len(calls) - left)
    assert engine.tracker.load.free_tokens == engine.facts.kv_tokens
    await server.stop()
    await engine.stop()


async def test_a_step_is_progress() -> None:
    """An engine that steps does not stall, however long an answer takes; one that cannot does."""
    time = FakeTime()
    engine = engine_with(time, max_sequences=1, **PLAIN_STEPS)
    exchange = Exchange(engine, COMPLETIONS, completion("abcd", max_tokens=99), time)
    await time.pass_s(20.5)
    assert engine.tracker.stalled_s == 0.5
    await engine.stop()
    await time.pass_s(10)
    assert engine.tracker.stalled_s == 10.5
    exchange.leave()
    await exchange.finish()
    assert engine.tracker.stalled_s == 0


async def test_a_client_may_leave_the_queue() -> None:
    """A client that leaves before its turn is skipped."""
    time = FakeTime()
    engine = engine_with(time, max_sequences=1, **PLAIN_STEPS)
    body = completion("abcd", max_tokens=2)
    first, second, third = (Exchange(engine, COMPLETIONS, body, time) for _ in range(3))
    await asyncio.sleep(0)
    second.leave()
    for exchange in (second, first, third):
        await exchange.finish()
    assert [first.writes_s, second.writes_s, third.writes_s] == [[2.0], [], [4.0]]


async def test_a_late_wake_up_delays_no_later_step() -> None:
    """Overdue tokens come together; later ones are on time."""
    time = FakeTime()
    engine = engine_with(time, **PLAIN_STEPS)
    body = completion("abcd", stream=True, max_tokens=6)
    exchange = Exchange(engine, COMPLETIONS, body, time)
    await time.pass_s(1.5)
    time.asleep_until_s = 4.5
    await exchange.finish()
    assert exchange.writes_s[:6] == [1.0, 4.5, 4.5, 4.5, 5.0, 6.0]


async def test_an_idle_engine_sleeps_until_it_is_needed() -> None:
    """Between requests no timer runs, and the next request starts at once."""
    time = FakeTime()
    engine = engine_with(time, **PLAIN_STEPS)
    body = completion("abcd", max_tokens=1)
    await Exchange(engine, COMPLETIONS, body, time).finish()
    assert time.sleepers == 0
    await time.pass_s(9.5)
    assert (await Exchange(engine, COMPLETIONS, body, time).finish()).writes_s == [11.5]


async def test_a_stopped_engine_makes_no_steps() -> None:
    """Stopping ends running requests; an engine without requests can be stopped, too."""
    time = FakeTime()
    engine = engine_with(time, **PLAIN_STEPS)
    exchange = Exchange(engine, COMPLETIONS, completion("abcd", stream=True), time)
    await time.pass_s(0.5)
    await engine.stop()
    await time.pass_s(99)
    assert (exchange.task.done(), exchange.writes_s) == (False, [])
    exchange.leave()
    await exchange.finish()
    await engine_with(time).stop()


async def test_a_broken_simulation_fails_its_check() -> None:
    """`check` raises the error that ended the steps."""
    time = FakeTime()
    engine = engine_with(time)
    await engine.check()

    async def break_down(_: float) -> None:
        raise ZeroDivisionError

    broken = SimulatedEngine(
        SimEntry(name="m", engine="sim"), Clock(now=lambda: 0.0, sleep=break_down)
    )
    exchange = Exchange(broken, COMPLETIONS, completion("abcd"), time)
    await time.run_until(lambda: True)
    with pytest.raises(ZeroDivisionError):
        await broken.check()
    exchange.leave()
    await exchange.finish()


def cached_tokens(exchange: Exchange) -> int:
    """Cached prompt tokens, by the usage."""
    count: int = exchange.json["usage"]["prompt_tokens_details"]["cached_tokens"]
    return count


async def test_a_next_turn_finds_the_conversation_in_the_cache() -> None:
    """All but its new tokens are cached: the prompt and the answer of the turn before."""
    engine = engine_with(block_size=4, output_tokens=30)
    question = [{"role": "user", "content": "Tell me about clouds and rivers."}]
    first = await Exchange(engine, CHAT, {"model": "m", "messages": question}).finish()
    said = first.json["choices"][0]["message"]["content"]
    turn = [*question, {"role": "assistant", "content": said}, {"role": "user", "content": "More"}]
    second = await Exchange(engine, CHAT, {"model": "m", "messages": turn}).finish()
    assert cached_tokens(first) == 0
    before = len(f"user: {question[0]['content']}\nassistant: {said}\n")
    assert cached_tokens(second) == before // 16 * 4


async def test_a_continued_text_is_found_in_the_cache() -> None:
    """A completion's text is cached as the continuation of its prompt."""
    engine = engine_with(block_size=4)
    first = await Exchange(engine, COMPLETIONS, completion("x" * 37)).finish()
    prompt = "x" * 37 + first.json["choices"][0]["text"]
    again = await Exchange(engine, COMPLETIONS, completion(prompt + "and then")).finish()
    assert cached_tokens(again) == len(prompt) // 16 * 4


@pytest.mark.parametrize(
    ("first", "second", "cached"),
    [
        (completion("x" * 64), completion("x" * 64), 12),
        (completion("x" * 64), completion("x" * 65), 16),
        (completion("x" * 64), completion("x" * 48 + "y" * 48), 12),
        (completion("x" * 64), completion("y" + "x" * 63), 0),
        (completion([7] * 16), completion([7] * 17), 16),
        (completion([0x78787878] * 16), completion("x" * 65), 0),
        (completion("x" * 64), completion("x" * 65, cache_salt="mine"), 0),
        (completion("x" * 64, cache_salt="mine"), completion("x" * 65, cache_salt="mine"), 16),
        (completion("x" * 64), completion(["x" * 65, "y" * 65]), 16),
    ],
)
async def test_equal_prefixes_share_blocks(first: object, second: object, cached: int) -> None:
    """Whole blocks of the same prefix are cached; the last token is always computed."""
    engine = engine_with(block_size=4)
    await Exchange(engine, COMPLETIONS, first).finish()
    assert cached_tokens(await Exchange(engine, COMPLETIONS, second).finish()) == cached


async def test_choices_of_a_prompt_read_it_once() -> None:
    """All choices but the first find the prompt's blocks."""
    time = FakeTime()
    engine = engine_with(time, **{**PLAIN_STEPS, "step_s_per_prefill_token": 1})
    body = completion("x" * 132, n=3, max_tokens=1)
    exchange = await Exchange(engine, COMPLETIONS, body, time).finish()
    assert (exchange.json["usage"]["prompt_tokens"], cached_tokens(exchange)) == (33, 0)
    # 33 tokens, and twice the one that no whole block has.
    assert exchange.writes_s == [1 + 33 + 1 + 1]


async def test_usage_in_a_stream_counts_the_cache() -> None:
    """The last chunk has the cached tokens, too."""
    engine = engine_with(block_size=4)
    body = completion("x" * 65, stream=True, stream_options={"include_usage": True})
    exchanges = [await Exchange(engine, COMPLETIONS, body).finish() for _ in range(2)]
    usages = [exchange.chunks[-1]["usage"]["prompt_tokens_details"] for exchange in exchanges]
    assert [usage["cached_tokens"] for usage in usages] == [0, 16]


async def test_a_request_larger_than_the_cache_is_rejected() -> None:
    """The context is no longer than the whole blocks of the cache."""
    engine = engine_with(kv_tokens=30, block_size=16, max_model_len=30)
    fits = await Exchange(engine, COMPLETIONS, completion([1] * 10, max_tokens=6)).finish()
    does_not = await Exchange(engine, COMPLETIONS, completion([1] * 10, max_tokens=7)).finish()
    assert fits.status == 200
    assert (does_not.status, does_not.error_code) == (400, "context_length_exceeded")
    assert engine.facts.max_model_len == 16


def latest_update(engine: SimulatedEngine) -> tuple[list[int], list[Finished], Load | None]:
    """The engine's update since the last one."""
    update = engine.tracker.pop_update()
    return (update.accepted, update.finished, update.load) if update else ([], [], None)


async def test_every_request_is_reported() -> None:
    """With its tokens, and its times by the clock, whatever the time scale."""
    time = FakeTime()
    speeds = {"step_s": 2, "step_s_per_prefill_token": 0.2, "step_s_per_sequence": 0}
    engine = engine_with(time, time_scale=2, max_sequences=1, **speeds)
    body = completion([5] * 20, max_tokens=4)
    headers = [dispatched(7, prompt_bytes=80, is_token_ids=True)]
    exchanges = [Exchange(engine, COMPLETIONS, body, time, headers=sent) for sent in (headers, [])]
    await time.pass_s(0.5)
    assert latest_update(engine) == (
        [7],
        [],
        Load(running=1, waiting=1, pending_tokens=40, free_tokens=65_536 - 32),
    )
    for exchange in exchanges:
        await exchange.finish()
    accepted, finished, load = latest_update(engine)
    assert accepted == []
    assert load == Load(running=0, waiting=0, pending_tokens=0, free_tokens=65_536)
    first, second = finished
    assert first == Finished(
        id=7,
        prompt_tokens=20,
        cached_tokens=0,
        completion_tokens=4,
        prompt_bytes=0,
        queue_s=0.0,
        prefill_s=3.0,
        decode_s=3.0,
        running=1.0,
    )
    # A block of 16 tokens is cached, four tokens are read.
    assert (second.id, second.cached_tokens, second.completion_tokens) == (0, 16, 4)
    seconds = (second.queue_s, second.prefill_s, second.decode_s)
    assert seconds == pytest.approx((6.0, 1.4, 3.0))


async def test_aborted_requests_are_reported() -> None:
    """A request whose client leaves counts as aborted, with the tokens it had."""
    time = FakeTime()
    engine = engine_with(time, **PLAIN_STEPS)
    body = completion("abcd", max_tokens=99, n=2)
    exchange = Exchange(engine, COMPLETIONS, body, time, headers=[dispatched(7)])
    await time.pass_s(3.5)
    exchange.leave()
    await exchange.finish()
    accepted, finished, load = latest_update(engine)
    assert accepted == [7]
    assert [(one.id, one.completion_tokens, one.is_aborted) for one in finished] == [
        (7, 3, True),
        (0, 3, True),
    ]
    assert load == Load(running=0, waiting=0, pending_tokens=0, free_tokens=65_536)


async def test_the_start_of_a_waiting_request_is_reported() -> None:
    """At once, not only with the first token."""
    time = FakeTime()
    engine = engine_with(time, max_sequences=1, **PLAIN_STEPS)
    news: list[tuple[float, int, int]] = []
    engine.tracker.add_listener(
        lambda: news.append((time.now_s, engine.tracker.load.running, engine.tracker.load.waiting))
    )
    body = completion("abcd", max_tokens=2)
    exchanges = [Exchange(engine, COMPLETIONS, body, time) for _ in range(2)]
    for exchange in exchanges:
        await exchange.finish()
    assert [one for one in news if one[0] == 2.0] == [(2.0, 0, 1), (2.0, 1, 0)]


async def test_a_late_wake_up_does_not_count_as_prefill() -> None:
    """A first token has the time of the end of its step, however late that was noticed."""
    time = FakeTime()
    engine = engine_with(time, **PLAIN_STEPS)
    exchange = Exchange(engine, COMPLETIONS, completion("abcd", max_tokens=9), time)
    await time.pass_s(0.5)
    time.asleep_until_s = 4.5
    await exchange.finish()
    [finished] = latest_update(engine)[1]
    assert (finished.prefill_s, finished.decode_s) == (1.0, 8.0)


async def test_an_instant_engine_reports_its_requests() -> None:
    """Without timing, tokens are counted as usual, and answers are cached for the next turn."""
    engine = engine_with()
    header = dispatched(7, key_bytes=64, prompt_bytes=8, seed=3, reply_start=b"a question")
    body = chat("x" * 400, max_tokens=20)
    for _ in range(2):
        await Exchange(engine, CHAT, body, headers=[header]).finish()
    update = engine.tracker.pop_update()
    assert update is not None
    assert [one.cached_tokens for one in update.finished] == [0, 96]
    assert {one.completion_tokens for one in update.finished} == {20}
    said = (await ask(CHAT, body)).json["choices"][0]["message"]["content"]
    assert len(update.added) // 8 == len("a question" + said) // 64 > 0


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CHAT, b"{", 400, "invalid_json"),
        (CHAT, b"\xff", 400, "invalid_json"),
        (CHAT, [], 400, "invalid_value"),
        (CHAT, {"model": "m"}, 400, "missing_required_parameter"),
        (CHAT, {"messages": []}, 400, "missing_required_parameter"),
        (CHAT, chat(n=0), 400, "integer_below_min_value"),
        (CHAT, chat(n=16_385), 400, "invalid_value"),
        (CHAT, chat(max_tokens=0), 400, "integer_below_min_value"),
        (CHAT, chat(max_tokens="9"), 400, "invalid_type"),
        (CHAT, chat(max_tokens=32_768), 400, "context_length_exceeded"),
        (CHAT, chat("x" * 4 * 32_768), 400, "context_length_exceeded"),
        (CHAT, {**chat(), "model": "other"}, 404, "model_not_found"),
        (COMPLETIONS, completion([]), 400, "invalid_value"),
        (COMPLETIONS, completion([1, "a"]), 400, "invalid_value"),
        (COMPLETIONS, completion(["a", 1]), 400, "invalid_value"),
        (COMPLETIONS, completion({"a": 1}), 400, "invalid_type"),
        (COMPLETIONS, completion([-1]), 400, "invalid_value"),
        (COMPLETIONS, completion([[1 << 31]]), 400, "invalid_value"),
        ("/v1/embeddings", completion("a"), 404, "unknown_url"),
    ],
)
async def test_invalid_requests_are_rejected(
    path: str, body: object, status: int, code: str
) -> None:
    """Errors have OpenAI's shape, and the mark of a simulation."""
    exchange = await ask(path, body)
    assert (exchange.status, exchange.error_code) == (status, code)
    assert exchange.headers[b"x-simulated"] == b"1"


async def test_a_context_filled_to_its_last_token_is_accepted() -> None:
    """Prompt and answer may fill the context exactly."""
    reply = (await ask(CHAT, chat(max_tokens=7), max_model_len=10)).json
    assert reply["usage"]["total_tokens"] == 10


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [(CHAT, "GET", b"POST"), ("/v1/models", "POST", b"GET"), ("/health", "POST", b"GET")],
)
async def test_wrong_methods_are_rejected(path: str, method: str, allowed: bytes) -> None:
    """A 405 says which method the path takes."""
    exchange = await Exchange(engine_with(), path, method=method).finish()
    assert (exchange.status, exchange.error_code) == (405, "method_not_allowed")
    assert exchange.headers[b"allow"] == allowed


async def test_the_model_is_listed() -> None:
    """`/v1/models` has the one model; `/health` succeeds."""
    listed = await Exchange(engine_with(), "/v1/models", method="GET").finish()
    assert [card["id"] for card in listed.json["data"]] == ["m"]
    assert (await Exchange(engine_with(), "/health", method="GET").finish()).status == 200


async def test_facts_come_from_the_entry() -> None:
    """Routers get the values of the entry, and the engine answers the routes they name."""
    facts = engine_with(kv_tokens=4096, block_size=32, max_sequences=3, max_model_len=99).facts
    assert facts.step_tokens == 4096
    assert (facts.engine, facts.kv_tokens, facts.block_size) == ("sim", 4096, 32)
    assert (facts.max_sequences, facts.max_model_len, facts.supports_priority) == (3, 99, True)
    assert set(facts.routes) == {*(CHAT, COMPLETIONS, "/tokenize", "/v1/responses/input_tokens")}


def test_a_step_has_a_token_for_every_sequence() -> None:
    """An entry whose sequences could not all decode in one step is rejected."""
    assert Simulation(step_tokens=8, max_sequences=8).step_tokens == 8
    with pytest.raises(ValidationError, match=r"7 is less than `max_sequences` 8"):
        Simulation(step_tokens=7, max_sequences=8)


async def test_the_simulator_runs_as_a_command(unused_tcp_port: int) -> None:
    """`python -m deployments.engines.sim` answers clients with the key, until it is ended."""
    arguments = ["--port", str(unused_tcp_port), "--instant", "--key", "k"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deployments.engines.sim", *arguments, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b"running on" not in await process.stderr.readline():
            pass
        url = f"http://127.0.0.1:{unused_tcp_port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as sdk:
            reply = await sdk.completions.create(model="sim", prompt="Hello", max_tokens=5)
            assert len(reply.choices[0].text.split()) == 5
            with pytest.raises(openai.AuthenticationError):
                await sdk.with_options(api_key="other").models.list()
        process.terminate()
        await process.communicate()


@pytest.fixture
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK, connected to a simulated engine over HTTP."""
    server = EngineServer(engine_with(), "127.0.0.1")
    await server.start()
    url = f"http://{server.host}:{server.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=server.key, max_retries=0) as sdk:
        yield sdk
    await server.stop()


async def test_openais_sdk_parses_responses_and_errors(client: openai.AsyncOpenAI) -> None:
    """The SDK parses responses, streams and errors of the engine behind its real server."""
    messages: Any = [{"role": "user", "content": "Hello"}]
    whole = await client.chat.completions.create(model="m", messages=messages, max_tokens=6)
    stream = await client.chat.completions.create(
        model="m", messages=messages, max_tokens=6, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) == 8
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="other", messages=messages)


async def test_requests_of_different_scopes_share_no_block() -> None:
    """As with vLLM: the same prompt is found in its own scope only, whatever salt is sent."""

    async def cached(number: int, cache_scope: str | None, **fields: object) -> int:
        origin = None if cache_scope is None else Origin(cache_scope=cache_scope)
        header = dispatched(number, origin=origin)
        body = chat("Hello " * 99, max_tokens=1, **fields)
        exchange = await Exchange(engine, CHAT, body, headers=[header]).finish()
        return int(exchange.json["usage"]["prompt_tokens_details"]["cached_tokens"])

    engine = engine_with()
    assert await cached(1, "project:a") == 0
    assert await cached(2, "project:a") > 100
    assert await cached(3, "project:b") == 0
    assert await cached(4, "project:b", cache_salt="project:a") == 0
    assert await cached(5, "") == 0
    assert await cached(6, None) > 100
    assert await cached(7, "", cache_salt="project:a") == 0
