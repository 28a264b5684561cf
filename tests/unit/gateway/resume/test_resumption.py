"""Broken streams, resumed by another engine: one whole stream for the client."""

import json
import re
from dataclasses import replace

import pytest

from gateway.resume.completion_params import Unresumable
from gateway.resume.resumption import ResumptionPlan, cut_at_word_end, plan_resumption
from gateway.resume.stream_log import StreamLog
from gateway.upstream.sse import event_data, split_events
from tests.model_engine import CHAT, COMPLETIONS, Body, ModelEngine, Summary, Token, said, summary

TEXT = said("The naïve café has 日本 tea.\n\n  It costs  3 €, friend 😀 ok. Come \t in ")
CALLS: list[Token] = [
    *said("Let me look. "),
    ("name 0", "look"),
    ("arguments 0", '{"a":'),
    ("arguments 0", " 1}"),
    ("name 1", "find"),
    ("arguments 1", "{}"),
]
THOUGHT: list[Token] = [("reasoning", "Hm,"), ("reasoning", " well."), *said("So it is.")]
USER = [{"role": "user", "content": "Hi there"}]
PREFILLED = said(" there is tea for you.")
GREEDY: Body = {"messages": USER, "temperature": 0}
SAMPLED: Body = {"messages": USER}
USAGE: Body = {"stream_options": {"include_usage": True}}
ALWAYS: Body = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
TOOLS: Body = {"tools": [{"type": "function", "function": {"name": "look"}}]}
IDS = [7, 8, 9]


def prefilled(content: object) -> Body:
    """Build a request whose answer the client has begun itself."""
    return {
        "messages": [*USER, {"role": "assistant", "content": content}],
        "continue_final_message": True,
        "add_generation_prompt": False,
        **USAGE,
    }


CASES: dict[str, tuple[str, Body, list[Token]]] = {
    "greedy": (CHAT, GREEDY, TEXT),
    "greedy by top_k": (CHAT, {**SAMPLED, "top_k": 1}, TEXT),
    "greedy, usage": (CHAT, {**GREEDY, **USAGE}, TEXT),
    "greedy, usage in every chunk": (CHAT, {**GREEDY, **ALWAYS}, TEXT),
    "greedy, limited": (CHAT, {**GREEDY, **USAGE, "max_tokens": 12}, TEXT),
    "greedy, limited by both names": (
        CHAT,
        {**GREEDY, **USAGE, "max_tokens": 99, "max_completion_tokens": 9},
        TEXT,
    ),
    "greedy, one word": (CHAT, {**GREEDY, **USAGE}, said("Supercalifragilistic")),
    "greedy, blank first": (CHAT, {**GREEDY, **USAGE}, said("\n\nWell, there it is.")),
    "greedy, prefilled": (CHAT, {**GREEDY, **prefilled("Well then,")}, PREFILLED),
    "greedy, prefilled in parts": (
        CHAT,
        {**GREEDY, **prefilled([{"type": "text", "text": "Well then,"}, {"type": "image"}])},
        PREFILLED,
    ),
    "greedy, a number in quotes": (CHAT, {**SAMPLED, "temperature": "0"}, TEXT),
    "greedy, tools": (CHAT, {**GREEDY, **TOOLS, **USAGE}, CALLS),
    "seeded, tools": (CHAT, {**SAMPLED, **TOOLS, **USAGE, "seed": 3}, CALLS),
    "greedy, reasoning": (CHAT, {**GREEDY, **USAGE}, THOUGHT),
    "greedy, probabilities": (CHAT, {**GREEDY, "logprobs": True}, TEXT),
    "greedy, token ids": (CHAT, {**GREEDY, "return_token_ids": True}, TEXT),
    "greedy, two choices": (CHAT, {**GREEDY, **USAGE, "n": 2}, TEXT),
    "greedy, penalty": (CHAT, {**GREEDY, **USAGE, "presence_penalty": 1}, TEXT),
    "greedy, format": (CHAT, {**GREEDY, "response_format": {"type": "json_object"}}, TEXT),
    "seeded": (CHAT, {**SAMPLED, **USAGE, "seed": 1}, TEXT),
    "sampled": (CHAT, {**SAMPLED, **USAGE, "temperature": 0.7}, TEXT),
    "sampled, limited": (CHAT, {**SAMPLED, **USAGE, "max_tokens": 12}, TEXT),
    "sampled, usage in every chunk": (CHAT, {**SAMPLED, **ALWAYS, "max_tokens": 9}, TEXT),
    "text, greedy": (
        COMPLETIONS,
        {"prompt": "Once upon", "temperature": 0, "max_tokens": 99, **USAGE},
        said(" a time there  was tea."),
    ),
    "text, no limit given": (COMPLETIONS, {"prompt": ["Once upon"], "temperature": 0}, TEXT[:15]),
    "text, sampled": (
        COMPLETIONS,
        {"prompt": "Once upon", "max_tokens": 4, **USAGE},
        said(" a time there  was tea."),
    ),
    "text, sampled, within a word": (COMPLETIONS, {"prompt": "On", "max_tokens": 9, **USAGE}, TEXT),
    "ids, greedy": (
        COMPLETIONS,
        {"prompt": IDS, "temperature": 0, "max_tokens": 99, **USAGE},
        said(" a time there  was tea."),
    ),
}
ALL = pytest.mark.parametrize(("path", "request_body", "answer"), CASES.values(), ids=CASES.keys())


async def resume(
    path: str, body: bytes, stream_log: StreamLog, engine: ModelEngine
) -> tuple[ResumptionPlan, list[bytes]]:
    """Return the plan, and what the client gets from `engine`, event by event."""
    plan = await plan_resumption(path, body, stream_log, engine.tokenize)
    if plan.body is None:
        return plan, split_whole(plan.final_events)
    events = await engine.stream(plan.path, plan.body)
    return plan, [plan.splice.feed(event) for event in events]


def split_whole(events: bytes) -> list[bytes]:
    """Split events, keeping their ends."""
    return [event + b"\n\n" for event in split_events(events)]


def log_of(*events: bytes) -> StreamLog:
    """Build a log of sent events."""
    stream_log = StreamLog()
    for event in events:
        stream_log.append(event)
    return stream_log


def assert_same(sent: list[bytes], rest: list[bytes], whole: Summary, where: object) -> None:
    """Check that a resumed stream equals the unbroken one, except for ids of later calls."""
    client = summary(b"".join(sent + rest))
    assert client.call_ids.keys() == whole.call_ids.keys()
    assert client.call_ids.items() >= summary(b"".join(sent)).call_ids.items()
    assert replace(client, call_ids=whole.call_ids) == whole, where


@ALL
@pytest.mark.parametrize(("chunk_tokens", "finishes_late"), [(1, False), (3, False), (1, True)])
async def test_a_stream_broken_anywhere_ends_as_the_unbroken_one(
    path: str,
    request_body: Body,
    answer: list[Token],
    chunk_tokens: int,
    finishes_late: bool,
) -> None:
    """Broken after any event, any stream has the same texts, ids, finish, usage and end."""
    body = json.dumps(request_body).encode()
    unbroken = await ModelEngine(answer, finishes_late=finishes_late).stream(path, body)
    whole = summary(b"".join(unbroken))
    for position in range(1, len(unbroken) + 1):
        sent = unbroken[:position]
        other = ModelEngine(answer, "b", chunk_tokens)
        _, rest = await resume(path, body, log_of(*sent), other)
        assert_same(sent, rest, whole, position)


@ALL
async def test_a_stream_broken_twice_ends_as_the_unbroken_one(
    path: str, request_body: Body, answer: list[Token]
) -> None:
    """Events of the second engine count as sent when it breaks, too."""
    body = json.dumps(request_body).encode()
    unbroken = await ModelEngine(answer).stream(path, body)
    whole = summary(b"".join(unbroken))
    for first in range(1, len(unbroken), 3):
        _, second = await resume(path, body, log_of(*unbroken[:first]), ModelEngine(answer, "b", 2))
        for position in range(len(second) + 1):
            sent = unbroken[:first] + second[:position]
            _, rest = await resume(path, body, log_of(*sent), ModelEngine(answer, "c", 1))
            assert_same(sent, rest, whole, (first, position))


ANSWER = said("Well, here it is")
CONTINUED_FIELDS = {"messages", "add_generation_prompt", "continue_final_message"}


@pytest.mark.parametrize(
    ("path", "request_body", "answer", "changed"),
    [
        (CHAT, GREEDY, ANSWER, CONTINUED_FIELDS),
        (CHAT, SAMPLED, ANSWER, CONTINUED_FIELDS),
        (CHAT, {**SAMPLED, "temperature": 0.5}, ANSWER, CONTINUED_FIELDS),
        (CHAT, {**GREEDY, "presence_penalty": 0.0, "stop": ["x"]}, ANSWER, CONTINUED_FIELDS),
        (CHAT, {**SAMPLED, **TOOLS, "tool_choice": "auto"}, ANSWER, CONTINUED_FIELDS),
        (CHAT, {**SAMPLED, **TOOLS, "tool_choice": "none"}, ANSWER, CONTINUED_FIELDS),
        (CHAT, {**SAMPLED, "response_format": {"type": "text"}}, ANSWER, CONTINUED_FIELDS),
        (CHAT, {**SAMPLED, "max_tokens": 50}, ANSWER, {*CONTINUED_FIELDS, "max_tokens"}),
        (CHAT, {**SAMPLED, "min_tokens": 3}, ANSWER, {*CONTINUED_FIELDS, "min_tokens"}),
        (CHAT, {**SAMPLED, "include_stop_str_in_output": True}, ANSWER, CONTINUED_FIELDS),
        (COMPLETIONS, {"prompt": "A"}, ANSWER, {"prompt", "max_tokens"}),
        (COMPLETIONS, {"prompt": ["A:"], "temperature": 0}, ANSWER, {"prompt", "max_tokens"}),
        (COMPLETIONS, {"prompt": "A", "max_tokens": None}, ANSWER, {"prompt"}),
        (COMPLETIONS, {"prompt": "A"}, ANSWER * 5, {"prompt"}),
        (CHAT, SAMPLED, [], set()),
        (CHAT, SAMPLED, said("\n "), set()),
        (CHAT, {**SAMPLED, "seed": 0}, ANSWER, set()),
        (CHAT, GREEDY, said("Well,"), set()),
        (CHAT, GREEDY, said("\n\nWell, well, well"), set()),
        (CHAT, {**GREEDY, **TOOLS}, CALLS, set()),
        (CHAT, {**GREEDY, "include_reasoning": False}, ANSWER, set()),
        (COMPLETIONS, {"prompt": "A wor", "temperature": 0}, said("ld is here"), set()),
        (COMPLETIONS, {"prompt": ["A", "B"], "temperature": 0}, ANSWER, set()),
    ],
)
async def test_a_text_is_continued_and_other_answers_are_repeated(
    path: str, request_body: Body, answer: list[Token], changed: set[str]
) -> None:
    """A repeated answer is requested with the original body."""
    body = json.dumps(request_body).encode()
    engine = ModelEngine(answer)
    sent = (await engine.stream(path, body))[: len(answer) + (path == CHAT) - 1]
    plan = await plan_resumption(path, body, log_of(*sent), engine.tokenize)
    assert plan.body is not None
    request = json.loads(plan.body)
    assert plan.path == path
    assert {name for name in request if request[name] != request_body.get(name)} == changed
    assert (plan.answered_bytes > 0) == bool(changed)


async def test_token_ids_of_an_answer_count_four_bytes_each() -> None:
    """The engine is told where in the prompt the answer begins."""
    body = json.dumps({"prompt": IDS, "max_tokens": 9}).encode()
    engine = ModelEngine(ANSWER)
    sent = (await engine.stream(COMPLETIONS, body))[:3]
    plan = await plan_resumption(COMPLETIONS, body, log_of(*sent), engine.tokenize)
    assert plan.body is not None
    assert len(json.loads(plan.body)["prompt"]) == len(IDS) + 3
    assert plan.answered_bytes == 4 * 3


@pytest.mark.parametrize("more", [{"temperature": 0}, {"temperature": 1e-6}, {"top_k": 1}])
async def test_a_greedy_text_is_continued_from_the_end_of_a_word(more: Body) -> None:
    """The engine repeats the last word; prompt and token limit allow for it."""
    request = {**SAMPLED, **more, "max_tokens": 20, "min_tokens": 5, "user": "x"}
    body = json.dumps(request).encode()
    sent = (await ModelEngine(TEXT).stream(CHAT, body))[:6]
    plan = await plan_resumption(CHAT, body, log_of(*sent), ModelEngine(TEXT).tokenize)
    assert plan.body is not None
    kept = "The naïve café has"
    assert json.loads(plan.body) == {
        **request,
        "messages": [*USER, {"role": "assistant", "content": kept}],
        "max_tokens": 16,
        "min_tokens": 1,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    assert plan.answered_bytes == len(kept.encode())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("one two three", "one two"),
        ("one two ", "one two"),
        ("one two  ", "one two"),
        ("one.\n\n two", ""),
        ("one.\n\ntwo three", "one.\n\ntwo"),
        ("one", ""),
        (" one", ""),
        ("日本 語", "日本"),
    ],
)
def test_cut_ends_where_a_token_ends(text: str, kept: str) -> None:
    """A token ends for sure only before a space after another character."""
    assert cut_at_word_end(text) == kept


WHOLE = "concerns the answer as a whole"


@pytest.mark.parametrize(
    ("path", "more", "answer", "reason"),
    [
        ("/v1/responses", {}, ANSWER, "Streams of this route"),
        (CHAT, {"n": 2}, ANSWER, f"`n` {WHOLE}"),
        (CHAT, {"logprobs": True}, ANSWER, f"`logprobs` {WHOLE}"),
        (CHAT, {"presence_penalty": 0.1}, ANSWER, f"`presence_penalty` {WHOLE}"),
        (CHAT, {"frequency_penalty": -1}, ANSWER, f"`frequency_penalty` {WHOLE}"),
        (CHAT, {"guided_regex": "a+"}, ANSWER, f"`guided_regex` {WHOLE}"),
        (CHAT, {"structured_outputs": {"json": {}}}, ANSWER, f"`structured_outputs` {WHOLE}"),
        (CHAT, {"response_format": {"type": "json_object"}}, ANSWER, "`response_format`"),
        (CHAT, {**TOOLS, "tool_choice": "required"}, ANSWER, f"`tool_choice` {WHOLE}"),
        (CHAT, {"stop": "x", "include_stop_str_in_output": True}, ANSWER, "`include_stop_str"),
        (CHAT, {"add_generation_prompt": False}, ANSWER, f"`add_generation_prompt` {WHOLE}"),
        (CHAT, {"include_reasoning": False}, ANSWER, f"`include_reasoning` {WHOLE}"),
        (CHAT, {"return_token_ids": True}, ANSWER, f"`return_token_ids` {WHOLE}"),
        (CHAT, {"temperature": [1]}, ANSWER, "The request cannot be read."),
        (CHAT, {"messages": 3}, ANSWER, "The prompt cannot be read."),
        (CHAT, prefilled([{"type": "image"}]), ANSWER, "The last message has no text"),
        (CHAT, {}, said("It is \ufffd now"), "The answer has bytes that are no text."),
        (CHAT, TOOLS, CALLS, "The answer has a tool call besides its text."),
        (CHAT, {}, THOUGHT, "The answer has reasoning besides its text."),
        (COMPLETIONS, {"prompt": "A", "best_of": 2}, ANSWER, f"`best_of` {WHOLE}"),
        (COMPLETIONS, {"prompt": "A", "echo": True}, ANSWER, f"`echo` {WHOLE}"),
        (COMPLETIONS, {"prompt": "A", "suffix": "B"}, ANSWER, f"`suffix` {WHOLE}"),
        (COMPLETIONS, {"prompt": "A", "logprobs": 0}, ANSWER, f"`logprobs` {WHOLE}"),
        (
            COMPLETIONS,
            {"prompt": ["A", "B"]},
            ANSWER,
            "The request does not have exactly one prompt.",
        ),
        (COMPLETIONS, {"prompt": []}, ANSWER, "The request does not have exactly one prompt."),
    ],
)
async def test_a_stream_that_cannot_be_resumed_says_why(
    path: str, more: Body, answer: list[Token], reason: str
) -> None:
    """The rest of a sampled answer must depend on nothing but its text."""
    stream_path = CHAT if path == "/v1/responses" else path
    sent = (await ModelEngine(answer).stream(stream_path, json.dumps(SAMPLED).encode()))[:-2]
    body = json.dumps({**SAMPLED, **more}).encode()
    with pytest.raises(Unresumable, match=f"^{re.escape(reason)}"):
        await plan_resumption(path, body, log_of(*sent), ModelEngine(answer).tokenize)


@pytest.mark.parametrize(
    "event",
    [
        b"data: {\n\n",
        b'data: {"error": {"message": "no"}}\n\n',
        b'data: {"choices": [{"delta": {"audio": {"id": "a"}}}]}\n\n',
        b'data: {"choices": [{"delta": {"function_call": {"name": "a"}}}]}\n\n',
    ],
)
async def test_a_stream_with_an_unknown_event_is_not_resumed(event: bytes) -> None:
    """Nothing is known of what follows an event that cannot be parsed."""
    with pytest.raises(Unresumable, match="The events sent so far cannot be parsed"):
        await plan_resumption(CHAT, b"{}", log_of(event), ModelEngine([]).tokenize)


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages"])
async def test_a_stream_without_data_is_requested_again(path: str) -> None:
    """Comments are no output: on any route the other stream is forwarded unchanged."""
    body = b"not even JSON"
    stream_log = log_of(b": still working\n\n")
    plan = await plan_resumption(path, body, stream_log, ModelEngine([]).tokenize)
    events = b"event: ping\ndata: {}\n\n"
    assert (plan.path, plan.body, plan.splice.feed(events)) == (path, body, events)


@pytest.mark.parametrize("request_body", [GREEDY, SAMPLED])
async def test_a_template_that_renders_another_prompt_is_not_continued(request_body: Body) -> None:
    """If the new prompt does not begin with the old one, the answer can only be repeated."""
    engine = ModelEngine(ANSWER, template="<assistant><think>")
    body = json.dumps(request_body).encode()
    stream_log = log_of(*(await engine.stream(CHAT, body))[:4])
    if request_body is GREEDY:
        plan = await plan_resumption(CHAT, body, stream_log, engine.tokenize)
        assert plan.body == body
    else:
        with pytest.raises(Unresumable, match="chat template"):
            await plan_resumption(CHAT, body, stream_log, engine.tokenize)


@pytest.mark.parametrize(
    ("more", "is_sound"), [({}, True), ({"max_tokens": 9}, False), (USAGE, False)]
)
async def test_without_a_tokenizer_only_uncounted_answers_are_continued(
    more: Body, is_sound: bool
) -> None:
    """If tokens cannot be counted, neither a limit nor a usage can be right."""
    engine = ModelEngine(ANSWER, has_tokenizer=False)
    body = json.dumps({**SAMPLED, **more}).encode()
    stream_log = log_of(*(await engine.stream(CHAT, body))[:4])
    if is_sound:
        plan = await plan_resumption(CHAT, body, stream_log, engine.tokenize)
        assert plan.answered_bytes == len("Well, here")
    else:
        with pytest.raises(Unresumable, match="count"):
            await plan_resumption(CHAT, body, stream_log, engine.tokenize)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("options", [{}, USAGE, ALWAYS])
async def test_an_answer_at_its_token_limit_is_finished_without_an_engine(
    path: str, options: Body
) -> None:
    """Only the finish is missing then."""
    prompt = {"prompt": "Once"} if path == COMPLETIONS else SAMPLED
    body = json.dumps({**prompt, **options, "max_tokens": 3}).encode()
    engine = ModelEngine(ANSWER, finishes_late=True)
    unbroken = await engine.stream(path, body)
    position = 3 + (path == CHAT)
    plan = await plan_resumption(path, body, log_of(*unbroken[:position]), engine.tokenize)
    assert plan.body is None
    finish, *rest = split_whole(plan.final_events)
    expected = json.loads(event_data(unbroken[position]))
    del expected["system_fingerprint"]
    assert json.loads(event_data(finish)) == {**json.loads(event_data(finish)), **expected}
    assert summary(b"".join(rest)).usages == summary(b"".join(unbroken[position:])).usages


async def test_tokens_are_counted_from_the_text_if_tokenize_takes_no_messages() -> None:
    """The token counts are still right."""
    engine = ModelEngine(ANSWER)

    async def tokenize(body: bytes, answered_bytes: int) -> list[int] | None:
        return None if b"messages" in body else await engine.tokenize(body, answered_bytes)

    body = json.dumps({**SAMPLED, **USAGE, "max_tokens": 9}).encode()
    unbroken = await engine.stream(CHAT, body)
    plan = await plan_resumption(CHAT, body, log_of(*unbroken[:4]), tokenize)
    assert plan.body is not None
    rest = plan.splice.feed(b"".join(await engine.stream(CHAT, plan.body)))
    assert summary(b"".join(unbroken[:4]) + rest) == summary(b"".join(unbroken))


async def test_an_answer_that_exceeds_its_limit_when_recounted_is_repeated() -> None:
    """The text may have other tokens than were generated."""
    body = json.dumps({**GREEDY, "max_tokens": 2}).encode()
    stream_log = log_of(content("One two three"))
    assert (await plan_resumption(CHAT, body, stream_log, ModelEngine([]).tokenize)).body == body


async def test_an_unrequested_usage_is_continued() -> None:
    """An engine may report usage in every chunk by itself; the last chunk then has it, too."""
    counted = json.dumps({**SAMPLED, **ALWAYS}).encode()
    engine = ModelEngine(ANSWER)
    unbroken = await engine.stream(CHAT, counted)
    body = json.dumps(SAMPLED).encode()
    plan = await plan_resumption(CHAT, body, log_of(*unbroken[:-2]), engine.tokenize)
    assert split_whole(plan.final_events)[-1] == unbroken[-1]
    assert summary(plan.final_events).usages == summary(b"".join(unbroken)).usages


async def test_a_completion_is_finished_only_with_a_finish_for_each_prompt() -> None:
    """A text completion has one choice per prompt."""
    body = json.dumps({"prompt": ["A", "B"], "temperature": 0}).encode()
    sent = (await ModelEngine(ANSWER).stream(COMPLETIONS, body))[:-1]
    plan = await plan_resumption(COMPLETIONS, body, log_of(*sent), ModelEngine([]).tokenize)
    assert plan.body == body


@pytest.mark.parametrize("more", [{}, {"seed": 1}, {**TOOLS}])
async def test_a_finished_answer_needs_no_engine(more: Body) -> None:
    """After the finish only `[DONE]` is missing, unless the client wants the usage."""
    answer = CALLS if "tools" in more else ANSWER
    body = json.dumps({**SAMPLED, **more}).encode()
    unbroken = await ModelEngine(answer).stream(CHAT, body)
    plan = await plan_resumption(CHAT, body, log_of(*unbroken[:-1]), ModelEngine([]).tokenize)
    assert (plan.body, plan.final_events) == (None, b"data: [DONE]\n\n")


async def test_the_usage_of_the_finish_is_the_final_usage() -> None:
    """If every chunk has a usage, a finished answer needs no engine, whatever it contains."""
    body = json.dumps({**SAMPLED, **TOOLS, **ALWAYS}).encode()
    unbroken = await ModelEngine(CALLS).stream(CHAT, body)
    plan = await plan_resumption(CHAT, body, log_of(*unbroken[:-2]), ModelEngine([]).tokenize)
    assert plan.body is None
    assert summary(plan.final_events).usages == summary(b"".join(unbroken)).usages


async def test_a_finished_answer_ends_without_a_usage_that_cannot_be_counted() -> None:
    """The answer is whole, so the stream is no failure."""
    body = json.dumps({**SAMPLED, **TOOLS, **USAGE}).encode()
    unbroken = await ModelEngine(CALLS).stream(CHAT, body)
    plan = await plan_resumption(CHAT, body, log_of(*unbroken[:-2]), ModelEngine([]).tokenize)
    assert (plan.body, plan.final_events) == (None, b"data: [DONE]\n\n")


@pytest.mark.parametrize("stop_reason", [None, "!", 151645])
async def test_the_token_that_ended_an_answer_is_counted(stop_reason: int | str | None) -> None:
    """End token and stop string are not in the text, but were generated."""
    body = json.dumps({**SAMPLED, **USAGE}).encode()
    engine = ModelEngine(said("Well, here it"), finishes_late=True)
    *sent, finish, _, _ = await engine.stream(CHAT, body)
    ended = finish.replace(b'"finish_reason"', b'"stop_reason": %b, "finish_reason"')
    sent.append(ended % json.dumps(stop_reason).encode())
    plan = await plan_resumption(CHAT, body, log_of(*sent), engine.tokenize)
    assert summary(plan.final_events).usages[0]["completion_tokens"] == 4 + 1


async def test_the_last_of_two_fields_with_one_name_counts() -> None:
    """The engine does the same; the new request has one of them."""
    body = b'{"temperature": 1, "max_tokens": 3, "messages": [], "temperature": 0, "max_tokens": 9}'
    stream_log = log_of(content("One two"))
    plan = await plan_resumption(CHAT, body, stream_log, ModelEngine([]).tokenize)
    assert plan.body is not None
    assert plan.body.count(b"max_tokens") == plan.body.count(b"temperature") == 1
    assert json.loads(plan.body)["max_tokens"] == 8


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"messages": ' + b"[" * 100_000, b'{"n": "x"}', b'{"n": "\xff"}']
)
async def test_hostile_bodies_are_not_resumed(body: bytes) -> None:
    """Any body gives a plan or a reason."""
    with pytest.raises(Unresumable, match="cannot be read"):
        await plan_resumption(CHAT, body, log_of(content("One two")), ModelEngine([]).tokenize)


def content(text: str) -> bytes:
    """Build a chunk with text."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}}
    return b"data: %b\n\n" % json.dumps({"id": "i", "choices": [choice]}).encode()


async def test_what_ended_an_answer_must_be_known_to_count_it() -> None:
    """With stop strings, and an engine that does not say which one it was, there is no usage."""
    body = json.dumps({**SAMPLED, **USAGE, "stop": "!"}).encode()
    engine = ModelEngine(said("Well, here it"), finishes_late=True)
    *sent, finish, _, _ = await engine.stream(CHAT, body)
    plan = await plan_resumption(CHAT, body, log_of(*sent, finish), engine.tokenize)
    assert (plan.body, plan.final_events) == (None, b"data: [DONE]\n\n")
