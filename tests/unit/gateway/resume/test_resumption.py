"""Broken streams, carried on by another engine: one whole stream for the client."""

import json
import re
from dataclasses import replace

import pytest

from gateway.resume.completion_params import Unresumable
from gateway.resume.resumption import Resumption, cut, resumption
from gateway.resume.stream_log import StreamLog
from gateway.upstream.sse import payload, split
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
    """A request whose answer the client has begun itself."""
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


async def carry_on(
    path: str, body: bytes, stream_log: StreamLog, engine: ModelEngine
) -> tuple[Resumption, list[bytes]]:
    """What the client gets of `engine`, event by event."""
    plan = await resumption(path, body, stream_log, engine.tokenize)
    if plan.body is None:
        return plan, split_again(plan.ending)
    events = await engine.stream(plan.path, plan.body)
    return plan, [plan.splice.feed(event) for event in events]


def split_again(events: bytes) -> list[bytes]:
    """Events with their ends."""
    return [event + b"\n\n" for event in split(events)]


def journal_of(*events: bytes) -> StreamLog:
    """A journal of what was sent."""
    stream_log = StreamLog()
    for event in events:
        stream_log.add(event)
    return stream_log


def assert_same(sent: list[bytes], rest: list[bytes], whole: Summary, where: object) -> None:
    """A mended stream is the unbroken one; a call that had not begun has an id of its own."""
    client = summary(b"".join(sent + rest))
    assert client.call_ids.keys() == whole.call_ids.keys()
    assert client.call_ids.items() >= summary(b"".join(sent)).call_ids.items()
    assert replace(client, call_ids=whole.call_ids) == whole, where


@ALL
@pytest.mark.parametrize(("chunk_tokens", "finishes_late"), [(1, False), (3, False), (1, True)])
async def test_stream_broken_anywhere_ends_as_the_unbroken_one(
    path: str,
    request_body: Body,
    answer: list[Token],
    chunk_tokens: int,
    finishes_late: bool,
) -> None:
    """After every event of every kind of stream: the same texts, ids, finish, usage and end."""
    body = json.dumps(request_body).encode()
    unbroken = await ModelEngine(answer, finishes_late=finishes_late).stream(path, body)
    whole = summary(b"".join(unbroken))
    for position in range(1, len(unbroken) + 1):
        sent = unbroken[:position]
        other = ModelEngine(answer, "b", chunk_tokens)
        _, rest = await carry_on(path, body, journal_of(*sent), other)
        assert_same(sent, rest, whole, position)


@ALL
async def test_stream_broken_twice_ends_as_the_unbroken_one(
    path: str, request_body: Body, answer: list[Token]
) -> None:
    """What the second engine sent counts as sent when it breaks, too."""
    body = json.dumps(request_body).encode()
    unbroken = await ModelEngine(answer).stream(path, body)
    whole = summary(b"".join(unbroken))
    for first in range(1, len(unbroken), 3):
        _, second = await carry_on(
            path, body, journal_of(*unbroken[:first]), ModelEngine(answer, "b", 2)
        )
        for position in range(len(second) + 1):
            sent = unbroken[:first] + second[:position]
            _, rest = await carry_on(path, body, journal_of(*sent), ModelEngine(answer, "c", 1))
            assert_same(sent, rest, whole, (first, position))


SENT = said("Well, here it is")
CONTINUED = {"messages", "add_generation_prompt", "continue_final_message"}


@pytest.mark.parametrize(
    ("path", "request_body", "answer", "changed"),
    [
        (CHAT, GREEDY, SENT, CONTINUED),
        (CHAT, SAMPLED, SENT, CONTINUED),
        (CHAT, {**SAMPLED, "temperature": 0.5}, SENT, CONTINUED),
        (CHAT, {**GREEDY, "presence_penalty": 0.0, "stop": ["x"]}, SENT, CONTINUED),
        (CHAT, {**SAMPLED, **TOOLS, "tool_choice": "auto"}, SENT, CONTINUED),
        (CHAT, {**SAMPLED, **TOOLS, "tool_choice": "none"}, SENT, CONTINUED),
        (CHAT, {**SAMPLED, "response_format": {"type": "text"}}, SENT, CONTINUED),
        (CHAT, {**SAMPLED, "max_tokens": 50}, SENT, {*CONTINUED, "max_tokens"}),
        (CHAT, {**SAMPLED, "min_tokens": 3}, SENT, {*CONTINUED, "min_tokens"}),
        (CHAT, {**SAMPLED, "include_stop_str_in_output": True}, SENT, CONTINUED),
        (COMPLETIONS, {"prompt": "A"}, SENT, {"prompt", "max_tokens"}),
        (COMPLETIONS, {"prompt": ["A:"], "temperature": 0}, SENT, {"prompt", "max_tokens"}),
        (COMPLETIONS, {"prompt": "A", "max_tokens": None}, SENT, {"prompt"}),
        (COMPLETIONS, {"prompt": "A"}, SENT * 5, {"prompt"}),
        (CHAT, SAMPLED, [], set()),
        (CHAT, SAMPLED, said("\n "), set()),
        (CHAT, {**SAMPLED, "seed": 0}, SENT, set()),
        (CHAT, GREEDY, said("Well,"), set()),
        (CHAT, GREEDY, said("\n\nWell, well, well"), set()),
        (CHAT, {**GREEDY, **TOOLS}, CALLS, set()),
        (CHAT, {**GREEDY, "include_reasoning": False}, SENT, set()),
        (COMPLETIONS, {"prompt": "A wor", "temperature": 0}, said("ld is here"), set()),
        (COMPLETIONS, {"prompt": ["A", "B"], "temperature": 0}, SENT, set()),
    ],
)
async def test_only_sound_requests_are_continued(
    path: str, request_body: Body, answer: list[Token], changed: set[str]
) -> None:
    """A text goes on; whatever else can be had again is asked for as it was."""
    body = json.dumps(request_body).encode()
    engine = ModelEngine(answer)
    sent = (await engine.stream(path, body))[: len(answer) + (path == CHAT) - 1]
    plan = await resumption(path, body, journal_of(*sent), engine.tokenize)
    assert plan.body is not None
    asked = json.loads(plan.body)
    assert plan.path == path
    assert {name for name in asked if asked[name] != request_body.get(name)} == changed
    assert (plan.answered_bytes > 0) == bool(changed)


async def test_token_ids_of_an_answer_count_four_bytes_each() -> None:
    """As everywhere in the router; the engine is told where in the prompt the answer begins."""
    body = json.dumps({"prompt": IDS, "max_tokens": 9}).encode()
    engine = ModelEngine(SENT)
    sent = (await engine.stream(COMPLETIONS, body))[:3]
    plan = await resumption(COMPLETIONS, body, journal_of(*sent), engine.tokenize)
    assert plan.body is not None
    assert len(json.loads(plan.body)["prompt"]) == len(IDS) + 3
    assert plan.answered_bytes == 4 * 3


@pytest.mark.parametrize("more", [{"temperature": 0}, {"temperature": 1e-6}, {"top_k": 1}])
async def test_a_text_is_asked_for_from_where_a_word_ends(more: Body) -> None:
    """If no chance is involved, the last word is said again; prompt and allowance say so."""
    request = {**SAMPLED, **more, "max_tokens": 20, "min_tokens": 5, "user": "x"}
    body = json.dumps(request).encode()
    sent = (await ModelEngine(TEXT).stream(CHAT, body))[:6]
    plan = await resumption(CHAT, body, journal_of(*sent), ModelEngine(TEXT).tokenize)
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
    """Before a space upon something else, and nowhere else."""
    assert cut(text) == kept


CONCERNS = "concerns the answer as a whole"


@pytest.mark.parametrize(
    ("path", "more", "answer", "reason"),
    [
        ("/v1/responses", {}, SENT, "Streams of this route"),
        (CHAT, {"n": 2}, SENT, f"`n` {CONCERNS}"),
        (CHAT, {"logprobs": True}, SENT, f"`logprobs` {CONCERNS}"),
        (CHAT, {"presence_penalty": 0.1}, SENT, f"`presence_penalty` {CONCERNS}"),
        (CHAT, {"frequency_penalty": -1}, SENT, f"`frequency_penalty` {CONCERNS}"),
        (CHAT, {"guided_regex": "a+"}, SENT, f"`guided_regex` {CONCERNS}"),
        (CHAT, {"structured_outputs": {"json": {}}}, SENT, f"`structured_outputs` {CONCERNS}"),
        (CHAT, {"response_format": {"type": "json_object"}}, SENT, "`response_format`"),
        (CHAT, {**TOOLS, "tool_choice": "required"}, SENT, f"`tool_choice` {CONCERNS}"),
        (CHAT, {"stop": "x", "include_stop_str_in_output": True}, SENT, "`include_stop_str"),
        (CHAT, {"add_generation_prompt": False}, SENT, f"`add_generation_prompt` {CONCERNS}"),
        (CHAT, {"include_reasoning": False}, SENT, f"`include_reasoning` {CONCERNS}"),
        (CHAT, {"return_token_ids": True}, SENT, f"`return_token_ids` {CONCERNS}"),
        (CHAT, {"temperature": [1]}, SENT, "The request cannot be read."),
        (CHAT, {"messages": 3}, SENT, "The prompt cannot be read."),
        (CHAT, prefilled([{"type": "image"}]), SENT, "The last message has no text"),
        (CHAT, {}, said("It is \ufffd now"), "The answer has bytes that are no text."),
        (CHAT, TOOLS, CALLS, "The answer has a tool call beside its text."),
        (CHAT, {}, THOUGHT, "The answer has reasoning beside its text."),
        (COMPLETIONS, {"prompt": "A", "best_of": 2}, SENT, f"`best_of` {CONCERNS}"),
        (COMPLETIONS, {"prompt": "A", "echo": True}, SENT, f"`echo` {CONCERNS}"),
        (COMPLETIONS, {"prompt": "A", "suffix": "B"}, SENT, f"`suffix` {CONCERNS}"),
        (COMPLETIONS, {"prompt": "A", "logprobs": 0}, SENT, f"`logprobs` {CONCERNS}"),
        (COMPLETIONS, {"prompt": ["A", "B"]}, SENT, "There are several prompts."),
        (COMPLETIONS, {"prompt": []}, SENT, "There are several prompts."),
    ],
)
async def test_what_cannot_be_carried_on_says_why(
    path: str, more: Body, answer: list[Token], reason: str
) -> None:
    """A sampled answer of which the rest depends on more than its text is given up."""
    stream_path = CHAT if path == "/v1/responses" else path
    sent = (await ModelEngine(answer).stream(stream_path, json.dumps(SAMPLED).encode()))[:-2]
    body = json.dumps({**SAMPLED, **more}).encode()
    with pytest.raises(Unresumable, match=f"^{re.escape(reason)}"):
        await resumption(path, body, journal_of(*sent), ModelEngine(answer).tokenize)


@pytest.mark.parametrize(
    "event",
    [
        b"data: {\n\n",
        b'data: {"error": {"message": "no"}}\n\n',
        b'data: {"choices": [{"delta": {"audio": {"id": "a"}}}]}\n\n',
        b'data: {"choices": [{"delta": {"function_call": {"name": "a"}}}]}\n\n',
    ],
)
async def test_what_was_not_understood_is_not_carried_on(event: bytes) -> None:
    """Nobody knows what follows upon an event that cannot be read."""
    with pytest.raises(Unresumable, match="What was sent cannot be read"):
        await resumption(CHAT, b"{}", journal_of(event), ModelEngine([]).tokenize)


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages"])
async def test_a_stream_without_events_begins_again(path: str) -> None:
    """Comments are no answer: the other engine's stream passes as it is, whatever the route."""
    body = b"not even JSON"
    stream_log = journal_of(b": still working\n\n")
    plan = await resumption(path, body, stream_log, ModelEngine([]).tokenize)
    events = b"event: ping\ndata: {}\n\n"
    assert (plan.path, plan.body, plan.splice.feed(events)) == (path, body, events)


@pytest.mark.parametrize("request_body", [GREEDY, SAMPLED])
async def test_a_template_that_writes_another_prompt_is_not_continued(request_body: Body) -> None:
    """If the new prompt does not begin with the old one, only a repetition is sound."""
    engine = ModelEngine(SENT, template="<assistant><think>")
    body = json.dumps(request_body).encode()
    stream_log = journal_of(*(await engine.stream(CHAT, body))[:4])
    if request_body is GREEDY:
        plan = await resumption(CHAT, body, stream_log, engine.tokenize)
        assert plan.body == body
    else:
        with pytest.raises(Unresumable, match="chat template"):
            await resumption(CHAT, body, stream_log, engine.tokenize)


@pytest.mark.parametrize(
    ("more", "is_sound"), [({}, True), ({"max_tokens": 9}, False), (USAGE, False)]
)
async def test_without_a_tokenizer_only_what_is_not_counted_goes_on(
    more: Body, is_sound: bool
) -> None:
    """Where tokens cannot be counted, neither an allowance nor a usage can be right."""
    engine = ModelEngine(SENT, has_tokenizer=False)
    body = json.dumps({**SAMPLED, **more}).encode()
    stream_log = journal_of(*(await engine.stream(CHAT, body))[:4])
    if is_sound:
        plan = await resumption(CHAT, body, stream_log, engine.tokenize)
        assert plan.answered_bytes == len("Well, here")
    else:
        with pytest.raises(Unresumable, match="count"):
            await resumption(CHAT, body, stream_log, engine.tokenize)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("options", [{}, USAGE, ALWAYS])
async def test_an_answer_without_tokens_left_is_ended(path: str, options: Body) -> None:
    """If only the finish is missing because the allowance is used up, no engine is asked."""
    prompt = {"prompt": "Once"} if path == COMPLETIONS else SAMPLED
    body = json.dumps({**prompt, **options, "max_tokens": 3}).encode()
    engine = ModelEngine(SENT, finishes_late=True)
    unbroken = await engine.stream(path, body)
    position = 3 + (path == CHAT)
    plan = await resumption(path, body, journal_of(*unbroken[:position]), engine.tokenize)
    assert plan.body is None
    finish, *rest = split_again(plan.ending)
    expected = json.loads(payload(unbroken[position]))
    del expected["system_fingerprint"]
    assert json.loads(payload(finish)) == {**json.loads(payload(finish)), **expected}
    assert summary(b"".join(rest)).usages == summary(b"".join(unbroken[position:])).usages


async def test_an_engine_that_renders_no_conversation_counts_the_text() -> None:
    """Where `/tokenize` takes only texts, the tokens of the answer are still right."""
    engine = ModelEngine(SENT)

    async def tokenize(body: bytes, answered_bytes: int) -> list[int] | None:
        return None if b"messages" in body else await engine.tokenize(body, answered_bytes)

    body = json.dumps({**SAMPLED, **USAGE, "max_tokens": 9}).encode()
    unbroken = await engine.stream(CHAT, body)
    plan = await resumption(CHAT, body, journal_of(*unbroken[:4]), tokenize)
    assert plan.body is not None
    rest = plan.splice.feed(b"".join(await engine.stream(CHAT, plan.body)))
    assert summary(b"".join(unbroken[:4]) + rest) == summary(b"".join(unbroken))


async def test_an_allowance_counted_in_two_ways_is_left_to_the_engine() -> None:
    """Where the text has more tokens than there were, the whole answer is asked for again."""
    body = json.dumps({**GREEDY, "max_tokens": 2}).encode()
    stream_log = journal_of(content("One two three"))
    assert (await resumption(CHAT, body, stream_log, ModelEngine([]).tokenize)).body == body


async def test_usage_that_nobody_asked_for_goes_on() -> None:
    """An engine may count in every chunk by its own rules; then the last one counts, too."""
    counted = json.dumps({**SAMPLED, **ALWAYS}).encode()
    engine = ModelEngine(SENT)
    unbroken = await engine.stream(CHAT, counted)
    body = json.dumps(SAMPLED).encode()
    plan = await resumption(CHAT, body, journal_of(*unbroken[:-2]), engine.tokenize)
    assert split_again(plan.ending)[-1] == unbroken[-1]
    assert summary(plan.ending).usages == summary(b"".join(unbroken)).usages


async def test_a_prompt_without_its_end_is_not_finished() -> None:
    """A text completion has a choice for every prompt."""
    body = json.dumps({"prompt": ["A", "B"], "temperature": 0}).encode()
    sent = (await ModelEngine(SENT).stream(COMPLETIONS, body))[:-1]
    plan = await resumption(COMPLETIONS, body, journal_of(*sent), ModelEngine([]).tokenize)
    assert plan.body == body


@pytest.mark.parametrize("more", [{}, {"seed": 1}, {**TOOLS}])
async def test_a_finished_answer_needs_no_engine(more: Body) -> None:
    """After the finish only the end is missing, if nobody asked for the usage."""
    answer = CALLS if "tools" in more else SENT
    body = json.dumps({**SAMPLED, **more}).encode()
    unbroken = await ModelEngine(answer).stream(CHAT, body)
    plan = await resumption(CHAT, body, journal_of(*unbroken[:-1]), ModelEngine([]).tokenize)
    assert (plan.body, plan.ending) == (None, b"data: [DONE]\n\n")


async def test_a_usage_that_came_with_the_finish_is_the_last() -> None:
    """If every chunk has counted, the answer is ended without an engine, whatever is in it."""
    body = json.dumps({**SAMPLED, **TOOLS, **ALWAYS}).encode()
    unbroken = await ModelEngine(CALLS).stream(CHAT, body)
    plan = await resumption(CHAT, body, journal_of(*unbroken[:-2]), ModelEngine([]).tokenize)
    assert plan.body is None
    assert summary(plan.ending).usages == summary(b"".join(unbroken)).usages


async def test_a_finished_answer_is_not_lost_with_its_usage() -> None:
    """A usage that cannot be counted is left out: the answer is whole."""
    body = json.dumps({**SAMPLED, **TOOLS, **USAGE}).encode()
    unbroken = await ModelEngine(CALLS).stream(CHAT, body)
    plan = await resumption(CHAT, body, journal_of(*unbroken[:-2]), ModelEngine([]).tokenize)
    assert (plan.body, plan.ending) == (None, b"data: [DONE]\n\n")


@pytest.mark.parametrize("stop_reason", [None, "!", 151645])
async def test_the_token_that_ended_an_answer_is_counted(stop_reason: int | str | None) -> None:
    """An end token has no text, and a stop string is cut off, but both were generated."""
    body = json.dumps({**SAMPLED, **USAGE}).encode()
    engine = ModelEngine(said("Well, here it"), finishes_late=True)
    *sent, finish, _, _ = await engine.stream(CHAT, body)
    ended = finish.replace(b'"finish_reason"', b'"stop_reason": %b, "finish_reason"')
    sent.append(ended % json.dumps(stop_reason).encode())
    plan = await resumption(CHAT, body, journal_of(*sent), engine.tokenize)
    assert summary(plan.ending).usages[0]["completion_tokens"] == 4 + 1


async def test_the_last_of_two_equal_fields_counts() -> None:
    """As for an engine; the request that goes on has one of them."""
    body = b'{"temperature": 1, "max_tokens": 3, "messages": [], "temperature": 0, "max_tokens": 9}'
    stream_log = journal_of(content("One two"))
    plan = await resumption(CHAT, body, stream_log, ModelEngine([]).tokenize)
    assert plan.body is not None
    assert plan.body.count(b"max_tokens") == plan.body.count(b"temperature") == 1
    assert json.loads(plan.body)["max_tokens"] == 8


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"messages": ' + b"[" * 100_000, b'{"n": "x"}', b'{"n": "\xff"}']
)
async def test_hostile_bodies_are_given_up(body: bytes) -> None:
    """Whatever a body is, it ends in an answer or a reason."""
    with pytest.raises(Unresumable, match="cannot be read"):
        await resumption(CHAT, body, journal_of(content("One two")), ModelEngine([]).tokenize)


def content(text: str) -> bytes:
    """A chunk with text."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}}
    return b"data: %b\n\n" % json.dumps({"id": "i", "choices": [choice]}).encode()
