"""Tests of prefix keys: shared by prompts that begin alike, and computed for any request."""

import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors.request import InvalidRequest
from gateway.identity.cache_scope import ScopeSeeds
from gateway.kvcache.json_text import MAX_COMMAS
from gateway.kvcache.prefix import KEY_BYTES, MAX_KEYS, Prompt, extend, prompt_of
from gateway.request.head import parse_json

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name", "input", "id"]), inner
        )
    ),
    max_leaves=9,
)
FIELDS = [
    *("messages", "system", "prompt", "input", "instructions", "tools", "documents"),
    *("cache_salt", "chat_template", "chat_template_kwargs", "reasoning_effort"),
    *("add_special_tokens", "truncate_prompt_tokens", "mm_processor_kwargs"),
]
LONG = "The quick brown fox jumps over the lazy dog. " * 30
OTHER = LONG.replace("lazy", "busy")

Fields = Mapping[str, object]


def read(fields: Fields, model: str = "m") -> Prompt:
    """Return the prompt of a request with these fields."""
    return prompt_of(parse_json(json.dumps({"model": model, **fields}).encode()))


def keys(fields: Fields, model: str = "m") -> list[int]:
    """Return the keys of that prompt."""
    return list(read(fields, model).keys)


def chat(*messages: Fields) -> Fields:
    """A chat with these messages."""
    return {"messages": list(messages)}


def said(content: object, role: str = "user") -> Fields:
    """A message with this content."""
    return {"role": role, "content": content}


def text(value: str) -> Fields:
    """A text part of a message."""
    return {"type": "text", "text": value}


def image(url: str) -> Fields:
    """An image part of a message."""
    return {"type": "image_url", "image_url": {"url": url}}


def audio(data: str) -> Fields:
    """An audio part of a message."""
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def called(arguments: str) -> Fields:
    """An assistant message that calls a tool."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def blocks(*contents: object) -> Fields:
    """An Anthropic chat of one message with these blocks."""
    return {"system": [text(LONG)], "messages": [said(list(contents))]}


DIFFERENT: list[tuple[str, Fields, Fields]] = [
    ("chat text", chat(said(LONG)), chat(said(OTHER))),
    ("chat parts", chat(said([text(LONG)])), chat(said([text(OTHER)]))),
    ("roles", chat(said(LONG)), chat(said(LONG, "system"))),
    ("names", chat({**said(LONG), "name": "a"}), chat({**said(LONG), "name": "b"})),
    ("tool calls", chat(called("{}"), said(LONG)), chat(called('{"a":1}'), said(LONG))),
    (
        "answered tools",
        chat({**said(LONG, "tool"), "tool_call_id": "1"}),
        chat({**said(LONG, "tool"), "tool_call_id": "2"}),
    ),
    ("images", chat(said([image("a"), text(LONG)])), chat(said([image("b"), text(LONG)]))),
    ("audio", chat(said([audio("YQ=="), text(LONG)])), chat(said([audio("Yg=="), text(LONG)]))),
    ("image or not", chat(said([image("a"), text(LONG)])), chat(said([text(LONG)]))),
    ("ends of messages", chat(said("ab"), said("c" + LONG)), chat(said("a"), said("bc" + LONG))),
    ("completions", {"prompt": LONG}, {"prompt": OTHER}),
    ("completions or chat", {"prompt": LONG}, chat(said(LONG))),
    ("texts", {"prompt": [LONG, "x"]}, {"prompt": [OTHER, "x"]}),
    ("token ids", {"prompt": [1] * 99}, {"prompt": [2] * 99}),
    ("lists of token ids", {"prompt": [[1] * 99, [3]]}, {"prompt": [[2] * 99, [3]]}),
    ("ids or text", {"prompt": [0x61616161] * 99}, {"prompt": "a" * 396}),
    ("embeddings", {"input": LONG}, {"input": OTHER}),
    ("embedded texts", {"input": [LONG]}, {"input": [OTHER]}),
    ("embedded ids", {"input": [1] * 99}, {"input": [2] * 99}),
    ("responses", {"input": [said(LONG)]}, {"input": [said(OTHER)]}),
    (
        "instructions",
        {"input": LONG, "instructions": "Be brief."},
        {"input": LONG, "instructions": "Be kind."},
    ),
    (
        "results of calls",
        {"input": [{"type": "function_call_output", "call_id": "1", "output": "1"}, said(LONG)]},
        {"input": [{"type": "function_call_output", "call_id": "1", "output": "2"}, said(LONG)]},
    ),
    (
        "system",
        {"system": "Be brief.", **chat(said(LONG))},
        {"system": "Be kind.", **chat(said(LONG))},
    ),
    (
        "system blocks",
        {"system": [text("Be brief.")], **chat(said(LONG))},
        {"system": [text("Be kind.")], **chat(said(LONG))},
    ),
    (
        "tool results",
        chat(said([{"type": "tool_result", "tool_use_id": "1", "content": LONG}])),
        chat(said([{"type": "tool_result", "tool_use_id": "1", "content": [text(OTHER)]}])),
    ),
    (
        "tool uses",
        chat(said([{"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}, text(LONG)])),
        chat(said([{"type": "tool_use", "id": "1", "name": "f", "input": {"a": 2}}, text(LONG)])),
    ),
]


@pytest.mark.parametrize(
    ("one", "other"), [row[1:] for row in DIFFERENT], ids=[row[0] for row in DIFFERENT]
)
def test_different_prompts_have_different_keys(one: Fields, other: Fields) -> None:
    """Every part of a prompt counts: prompts that begin differently differ in their first key."""
    assert keys(one)
    assert keys(one) == keys(dict(one))
    assert keys(one)[0] != keys(other)[0]


SAME: list[tuple[Fields, Fields]] = [
    (chat(said(LONG)), chat(said([text(LONG)]))),
    (chat(said(LONG)), chat(said([{"type": "input_text", "text": LONG}]))),
    (chat(said(LONG)), {"messages": [said(LONG)], "temperature": 0.5, "stream": True}),
    (chat(said(LONG)), {"messages": [said(LONG)], "tools": None, "system": None, "prompt": None}),
    (chat(said(LONG)), {"messages": [said(LONG)], "tools": []}),
    (chat(said(LONG)), chat({**said(LONG), "name": None, "tool_calls": []})),
    (chat(said(LONG)), {"input": [said(LONG)]}),
    ({"system": "Be brief.", **chat(said(LONG))}, chat(said("Be brief.", "system"), said(LONG))),
    ({"instructions": "Be brief.", "input": LONG}, chat(said("Be brief.", "system"), said(LONG))),
    ({"input": LONG}, {"input": LONG, "instructions": None}),
    ({"prompt": LONG}, {"prompt": [LONG, OTHER]}),
    ({"prompt": [1] * 99}, {"prompt": [[1] * 99, [2]]}),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equivalent_spellings_of_a_prompt_have_the_same_keys(one: Fields, other: Fields) -> None:
    """Text or parts, null or absent: an engine renders both alike, so they share their keys."""
    assert keys(one)
    assert keys(one) == keys(other)


@pytest.mark.parametrize(
    "extra",
    [
        {"cache_salt": "s"},
        {"documents": [{"text": "d"}]},
        {"chat_template": "{{ messages }}"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "low"},
        {"reasoning": {"effort": "low"}},
        {"thinking": {"type": "disabled"}},
        {"previous_response_id": "resp_1"},
        {"add_special_tokens": False},
        {"truncate_prompt_tokens": 9},
        {"mm_processor_kwargs": {"num_crops": 4}},
    ],
)
@pytest.mark.parametrize("prompt", [chat(said(LONG)), {"prompt": LONG}, {"prompt": [1] * 99}])
def test_salts_and_template_arguments_change_all_keys(prompt: Fields, extra: Fields) -> None:
    """Fields that change how a prompt begins are part of the seed of the first key."""
    assert not set(keys(prompt)) & set(keys({**prompt, **extra}))


def test_tools_come_before_the_conversation() -> None:
    """Other tools give other keys, and a long list of tools is a prefix that requests can share."""
    tools = [{"type": "function", "function": {"name": f"f{i}", "description": LONG}} for i in "12"]
    without, one, both = (keys({**chat(said("hi")), "tools": t}) for t in ([], tools[:1], tools))
    other = keys({**chat(said("something else")), "tools": tools})
    assert not set(without) & set(one)
    assert len(both) > len(one) > 0
    assert len(set(both) & set(other)) >= len(both) - 1


def test_prompts_with_media_are_marked() -> None:
    """Tokens per byte must not be learned from prompts that are only partly text."""
    assert read(chat(said([image("data:image/png;base64,A")]))).has_media
    assert not read(chat(said(LONG))).has_media
    assert not read({"prompt": [0x1C1C1C1C] * 99}).has_media


def test_models_share_no_keys() -> None:
    """The same text has different keys for another model and for an adapter."""
    prompt = chat(said(LONG))
    assert not set(keys(prompt, "m")) & set(keys(prompt, "m:adapter"))


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=400))))
def test_a_longer_conversation_extends_a_shorter_one(turns: Sequence[tuple[str, str]]) -> None:
    """Adding messages leaves the keys of the earlier messages as they were."""
    messages = [said(content, role) for role, content in turns]
    for end in range(len(messages)):
        shorter, longer = keys(chat(*messages[:end])), keys(chat(*messages))
        assert longer[: len(shorter)] == shorter


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_keys_are_shared_up_to_the_first_difference(data: bytes, position: int) -> None:
    """A changed byte changes the key of its block and all later keys, and no earlier one."""
    changed = data[:position] + b"!" + data[position + 1 :]
    shared = [a == b for a, b in zip(extend(7, data), extend(7, changed), strict=False)]
    first = next((i for i, (a, b) in enumerate(zip(data, changed, strict=False)) if a != b), None)
    blocks_before = len(shared) if first is None else first // KEY_BYTES
    assert shared == [i < blocks_before for i in range(len(shared))]


@given(st.text(max_size=900), st.text(max_size=900), st.text(max_size=300))
def test_a_chat_reply_extends_the_keys_of_its_prompt(
    question: str, reply: str, next_question: str
) -> None:
    """An engine can compute from a reply's text the keys that the next turn will have."""
    prompt = read(chat(said(question)))
    assert prompt.reply_start is not None
    last = prompt.keys[-1] if prompt.keys else prompt.seed

    reply_keys = extend(last, prompt.reply_start + reply.encode())

    answered = [said(question), said(reply, "assistant")]
    assert [*prompt.keys, *reply_keys] == keys(chat(*answered))
    following = keys(chat(*answered, said(next_question)))
    assert following[: len(prompt.keys) + len(reply_keys)] == [*prompt.keys, *reply_keys]


def test_a_completion_extends_the_keys_of_its_prompt() -> None:
    """A completion has no messages: the reply follows the prompt directly."""
    prompt = read({"prompt": LONG})
    assert prompt.reply_start is not None
    reply_keys = extend(prompt.keys[-1], prompt.reply_start + OTHER.encode())
    assert [*prompt.keys, *reply_keys] == keys({"prompt": LONG + OTHER})


@pytest.mark.parametrize("place", range(3))
def test_anthropic_cache_marks_do_not_change_keys(place: int) -> None:
    """`cache_control` moves from turn to turn while the blocks stay the same."""
    contents = [text(LONG), text(OTHER), {"type": "tool_result", "content": LONG}]
    marked = list(contents)
    marked[place] = {**contents[place], "cache_control": {"type": "ephemeral"}}
    assert keys(blocks(*contents)) == keys(blocks(*marked))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": []},
        {"messages": [{}]},
        {"messages": None},
        {"messages": "hello"},
        {"messages": {"role": "user"}},
        {"messages": [3, None, "x"]},
        {"messages": [said([None, 4, "x", {"type": 3}])]},
        {"messages": [{"role": 3, "content": {"a": 1}}]},
        {"prompt": ""},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [-1]},
        {"prompt": [2**40]},
        {"prompt": [10**30]},
        {"prompt": ["a", 5]},
        {"prompt": {"a": 1}},
        {"prompt": 1.5},
        {"input": []},
        {"input": [None]},
        {"input": {"a": 1}},
        {"input": "x", "instructions": 3},
        {"system": 3, "messages": []},
        {"query": "a", "documents": ["b"]},
    ],
)
def test_a_prompt_that_cannot_be_read_has_no_keys(fields: Fields) -> None:
    """The engine rejects an invalid request; the router only has to route it, by load."""
    assert not read(fields).keys


def test_a_message_that_cannot_be_read_keeps_the_keys_of_the_others() -> None:
    """An unknown kind of content is hashed as a whole, so earlier messages keep their keys."""
    strange: Fields = {"role": "user", "content": {"new": True}}
    odd_part: Fields = {"type": "new_result", "content": {"new": True}}
    before = keys(chat(said(LONG)))
    assert keys(chat(said(LONG), strange, said(OTHER)))[: len(before)] == before
    assert keys(chat(said(LONG), said([odd_part, text(OTHER)])))[: len(before)] == before


def test_nested_tool_results_are_not_parsed() -> None:
    """However deeply a client nests them, the prompt is parsed once."""
    inner: Fields = text(LONG)
    for _ in range(200):
        inner = {"type": "tool_result", "tool_use_id": "1", "content": [inner]}
    prompt = read(chat(said([inner])))
    assert 0 < prompt.size < KEY_BYTES


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [0] * (MAX_COMMAS + 2)},
        {"messages": [said([0] * (MAX_COMMAS + 2))]},
        {"system": [text("")] * (MAX_COMMAS + 2), **chat(said(LONG))},
        {"input": [0] * (MAX_COMMAS + 2)},
    ],
)
def test_a_prompt_with_too_many_elements_is_not_parsed(fields: Fields) -> None:
    """Parsing it would block the event loop for seconds, so it is routed by load."""
    prompt = read(fields)
    assert not prompt.keys
    assert prompt.size > MAX_COMMAS, "its length still counts"


def test_only_the_beginning_of_a_huge_list_of_token_ids_has_keys() -> None:
    """A body can hold sixteen million ids; the keys stand for half a million."""
    for prompt in ([7] * 3_000_000, [[7] * 3_000_000, [8]]):
        found = read({"prompt": prompt})
        assert len(found.keys) == MAX_KEYS
        assert found.is_token_ids


def test_a_prompt_of_images_alone_has_keys() -> None:
    """Each image counts by the hash of its content."""
    many = [image(f"data:image/png;base64,{i}{LONG}") for i in range(50)]
    prompt = read(chat(said(many)))
    assert prompt.keys
    assert prompt.size < len(LONG)
    assert list(prompt.keys) != keys(chat(said(many[::-1])))


def test_token_ids_count_as_four_bytes_each() -> None:
    """The size of a prompt of token ids gives its exact number of tokens."""
    prompt = read({"prompt": list(range(200))})
    assert prompt.is_token_ids
    assert (prompt.size, len(prompt.keys)) == (800, 3)
    assert not read({"prompt": LONG}).is_token_ids


def test_only_the_beginning_of_a_huge_prompt_has_keys() -> None:
    """Ten megabytes give the maximum number of keys, which no reply can extend."""
    prompt = read(chat(said("x" * 10_000_000)))
    assert len(prompt.keys) == MAX_KEYS
    assert prompt.size > 10_000_000
    assert prompt.reply_start is None


@given(st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES), st.text(min_size=1, max_size=5))
def test_any_request_has_a_prompt(fields: dict[str, object], model: str) -> None:
    """Arbitrary values in the known fields never raise."""
    prompt = read(fields, model)
    assert len(prompt.keys) <= prompt.size / KEY_BYTES


@given(st.sampled_from(FIELDS), st.binary(max_size=60))
def test_any_bytes_give_a_prompt_or_a_client_error(name: str, value: bytes) -> None:
    """Invalid JSON is rejected when the head is parsed; any valid JSON has a prompt."""
    try:
        head = parse_json(b'{"model":"m","%b":%b}' % (name.encode(), value))
    except InvalidRequest:
        return
    assert prompt_of(head).size >= 0


@given(
    st.text(min_size=300, max_size=600),
    st.sampled_from(["chat", "prompt", "ids", "input"]),
    st.lists(st.text(max_size=9), min_size=2, max_size=4, unique=True),
    st.none() | st.text(min_size=1, max_size=9),
)
def test_prompts_of_different_scopes_share_no_key(
    content: str, kind: str, scopes: list[str], salt: str | None
) -> None:
    """Whatever the client's own salt; in one scope, equal prompts have equal keys."""
    prompts: dict[str, Fields] = {
        "chat": chat(said(content)),
        "prompt": {"prompt": content},
        "ids": {"prompt": [ord(each) for each in content]},
        "input": {"input": content},
    }
    own = {"cache_salt": salt} if salt else {}
    head = parse_json(json.dumps({"model": "m", **prompts[kind], **own}).encode())
    every = [prompt_of(head, scope=ScopeSeeds(b"key").seed(scope)) for scope in scopes]
    again = [prompt_of(head, scope=ScopeSeeds(b"key").seed(scope)) for scope in scopes]

    assert every == again
    assert all(prompt.keys for prompt in every)
    assert len({prompt.seed for prompt in every}) == len(scopes)
    seen = [key for prompt in every for key in prompt.keys]
    assert len(set(seen)) == len(seen)


def test_what_is_shared_by_all_has_the_keys_of_an_open_gateway() -> None:
    """Without a scope nothing changes."""
    head = parse_json(json.dumps({"model": "m", "prompt": LONG}).encode())
    assert prompt_of(head, scope=ScopeSeeds(b"key").seed("")) == prompt_of(head)
