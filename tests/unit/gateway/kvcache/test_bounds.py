"""Tests of the bounds: whatever a client sends, keys cost no more than the text that has them."""

import json

import pytest

from gateway.errors.request import InvalidRequest
from gateway.kvcache.json_text import decode_string
from gateway.kvcache.prefix import KEY_BYTES, MAX_KEYS, prompt_of
from gateway.kvcache.tool_definitions import CACHED_TEXTS, ToolTexts
from gateway.request.head import OPTION_FIELDS, SEED_FIELDS, PromptParts, parse_json
from tests.unit.work import repeated, work_of

SIZE = 4_000_000
MAX_CALLS = 400_000
"""Calls of functions; a body of this size can have two million elements."""
MAX_MEMORY = 50_000_000
FIELDS = (
    *(name for name in PromptParts.__struct_fields__ if name not in {"seeds", "options"}),
    *SEED_FIELDS,
    *OPTION_FIELDS,
)


def chat(content: bytes, role: bytes = b"user", field: bytes = b"content") -> bytes:
    """A list of one message."""
    return b'[{"role":"%b","%b":%b}]' % (role, field, content)


ESCAPES = b'"%b"' % (rb"\u0041" * (SIZE // 6))
HOSTILE = {
    "numbers": repeated(b"1", SIZE),
    "objects": repeated(b'{"a":1}', SIZE),
    "empty objects": repeated(b"{}", SIZE),
    "lists": repeated(b"[]", SIZE),
    "texts": repeated(b'""', SIZE),
    "messages": repeated(b'{"role":"user","content":"x"}', SIZE),
    "answers": repeated(b'{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}', SIZE),
    "calls": chat(repeated(b'{"function":{"name":"f"}}', SIZE), b"assistant", b"tool_calls"),
    "parts": chat(repeated(b'{"type":"text","text":"x"}', SIZE)),
    "results": chat(b'[{"type":"tool_result","content":%b}]' % repeated(b'{"type":"text"}', SIZE)),
    "items": repeated(b'{"type":"function_call"}', SIZE),
    "tools": repeated(b'{"name":"f","input_schema":{}}', SIZE),
    "escapes": ESCAPES,
    "escapes in a message": chat(ESCAPES),
    "escapes in a part": chat(b'[{"type":"text","text":%b}]' % ESCAPES),
}


def cost(body: bytes) -> tuple[int, int]:
    """Calls of functions that a prompt's keys take, and bytes of memory."""
    head = parse_json(body)
    return work_of(lambda: prompt_of(head))


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_field_costs_more_than_its_text_is_worth(kind: str) -> None:
    """Megabytes of tiny elements or escapes cost little in every field, nested or not."""
    for field in FIELDS:
        body = b'{"model":"m","%b":%b}' % (field.encode(), HOSTILE[kind])
        if field not in {"messages", "prompt", "input"}:
            body = body[:-1] + b',"messages":[{"role":"user","content":"hi"}],"input":"hi"}'
        try:
            calls, memory = cost(body)
        except InvalidRequest:
            continue
        assert calls < MAX_CALLS, field
        assert memory < MAX_MEMORY, field


def read(fields: dict[str, object]) -> tuple[int, int]:
    """Number of keys of a prompt, and its size."""
    prompt = prompt_of(parse_json(json.dumps({"model": "m", **fields}).encode()))
    return len(prompt.keys), prompt.size


def test_a_conversation_of_a_million_tokens_keeps_its_keys() -> None:
    """Five megabytes of prose and source code, with all their commas and escapes."""
    line = 'if a[0] == "x", then print("é", b);\n\t'
    turns = [
        {"role": ("user", "assistant")[turn % 2], "content": line * 60} for turn in range(2_200)
    ]
    keys, size = read({"messages": turns})
    assert keys == MAX_KEYS
    assert size > 5_000_000


def test_a_large_image_leaves_the_keys_of_the_text() -> None:
    """Base64 is no text: it counts by its hash, and the text behind it has keys, too."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A/" * SIZE}}
    content = [image, {"type": "text", "text": "x" * 10 * KEY_BYTES}]
    keys, size = read({"messages": [{"role": "user", "content": content}]})
    assert keys == 10
    assert size < 11 * KEY_BYTES + 100


@pytest.mark.parametrize("text", ["a\\b", '"', "é\n", "世界", "😀😀", "\\u0041", "\x01\\\\"])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_string_is_cut_between_characters(text: str, is_ascii: bool) -> None:
    """Neither a character nor an escape is cut in two, wherever the limit is."""
    whole = text * 5
    raw = json.dumps(whole, ensure_ascii=is_ascii).encode()
    for limit in range(2, len(raw) + 1):
        found = decode_string(raw, limit)
        assert whole.startswith(found)
        assert len(json.dumps(found, ensure_ascii=is_ascii)) >= limit - 13 or not is_ascii


def test_tools_are_read_once() -> None:
    """The cache of tools answers as if there were none, and stays small."""
    texts = ToolTexts()
    for number in range(2 * CACHED_TEXTS):
        tools = [{"type": "function", "function": {"name": f"f{number % (CACHED_TEXTS + 1)}"}}]
        head = parse_json(json.dumps({"model": "m", "tools": tools}).encode())
        first, again = texts.read(head.prompt.tools), texts.read(head.prompt.tools)
        assert first is again
        assert len(texts) <= CACHED_TEXTS
