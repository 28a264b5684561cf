"""Attacks: requests by which one client could hold a model, or make its engines look broken.

Each attack stands for a kind. Bodies are of the sizes that were seen to do harm to engines that
get them: megabytes where a server reads before it limits, few bytes where work explodes. Some stay
within all limits, and are answered: they must not hold up others either.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from loadtests.loadgen.client import CHAT_PATH

COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
TOKENIZE = "/tokenize"
MB = 1_000_000
HELLO = [{"role": "user", "content": "Hello"}]
COPY = b"number of this copy"
"""Text in a body that each copy replaces with its own number."""
MANY_TOKENS = 64
"""Tokens of each of very many sequences."""
SLOW_FIELDS = 10
"""Fields with a long pattern each, whose grammar takes two seconds or three to try."""

Body = Mapping[str, object]


@dataclass(frozen=True)
class Attack:
    """A request that a hostile client sends again and again."""

    name: str
    path: str
    make_body: Callable[[str], bytes]
    """The body, for a model."""
    copies: int = 1
    """Copies that are in flight at the same time."""
    repeats: int = 1
    """Times that they are sent, one right after the other."""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_slow: bool = False
    """The body arrives a little at a time, and never to its end."""


def attacks(image_url: str) -> list[Attack]:
    """All attacks; `image_url` is an address that never finishes an answer."""
    return [
        *_large(),
        *_many(),
        *_explosive(),
        *_failing(),
        *_media(image_url),
        *_slow(),
        *_allowed(),
    ]


def _large() -> Iterator[Attack]:
    """Megabytes that an engine or a router would tokenize, parse or hash."""
    for size in (3 * MB, 30 * MB):
        yield _chat(f"bad word of {size // MB} MB", bad_words=["w" * size])
    yield _chat("stop of 3 MB", stop=["w" * 3 * MB])
    yield _chat("half a million biases", logit_bias={str(token): 1 for token in range(500_000)})
    yield Attack("10 MB to tokenize", TOKENIZE, _prompt(10 * MB))
    yield Attack("10 MB, cut short", COMPLETIONS, _prompt(10 * MB, truncate_prompt_tokens=8))
    tiny = b'{"model": %b, "input": "x", "instructions": [' + b'{"a":1},' * (31 * MB // 8) + b"1]}"
    yield Attack("tiny parts", RESPONSES, lambda model: tiny.replace(b"%b", _json(model), 1))
    escapes = b'{"model": %b, "messages": [{"role": "user", "content": "' + rb"\u0041" * (5 * MB)
    yield Attack("escapes", CHAT_PATH, lambda model: escapes.replace(b"%b", _json(model)) + b'"}]}')
    keys = b",".join(b'"k%d":0' % number for number in range(2 * MB))
    yield Attack(
        "two million keys", CHAT_PATH, lambda model: b'{"model": %b, %b}' % (_json(model), keys)
    )


def _many() -> Iterator[Attack]:
    """One request that asks for the work of thousands."""
    for n in (999, 2000, 16_384):
        yield _chat(f"{n} answers", n=n, temperature=1, max_tokens=MANY_TOKENS)
    prompts = [f"Prompt {number}" for number in range(1500)]
    yield Attack("1500 prompts", COMPLETIONS, _with(prompt=prompts, max_tokens=8))


def _explosive() -> Iterator[Attack]:
    """Grammars whose compilation takes seconds, and cannot be cancelled."""
    choices = [f"choice number {number}" for number in range(40_000)]
    yield _structured("40,000 choices", choice=choices)
    alternatives = "|".join(f"word{number}" for number in range(20_000))
    yield _structured("20,000 alternatives", regex=alternatives)
    yield _structured("repetitions", regex="((a{1,1000}){1,1000}){1,1000}")
    properties = {f"property{number}": {"type": "string"} for number in range(2000)}
    yield _structured("2,000 properties", json={"type": "object", "properties": properties})


def _failing() -> Iterator[Attack]:
    """Requests that engines answer with a server error of their own."""
    refused: Mapping[str, Body] = {
        "endless reference": {"json": {"$ref": "#"}},
        "empty enum": {"json": {"oneOf": [{"enum": []}]}},
        "left recursion": {"grammar": "root ::= root | root root"},
        "letters": {"regex": r"\p{L}+"},
    }
    for name, structure in refused.items():
        yield _structured(name, copies=4, **structure)
    items = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": []}]
    yield Attack("empty item", RESPONSES, _with(input=items), copies=4)


def _media(image_url: str) -> Iterator[Attack]:
    """Addresses that an engine would fetch for anybody."""
    for url in (image_url, "file:///etc/passwd"):
        content = [{"type": "image_url", "image_url": {"url": url}}]
        messages = [{"role": "user", "content": content}]
        yield Attack(f"image at {url[:8]}", CHAT_PATH, _with(messages=messages), copies=4)


def _slow() -> Iterator[Attack]:
    """Bodies that are held while they come."""
    yield Attack("slow bodies", CHAT_PATH, _prompt(31 * MB), copies=6, is_slow=True)


def _allowed() -> Iterator[Attack]:
    """Much work that no limit forbids."""
    yield _chat("128 long answers", n=128, temperature=1, max_tokens=200)
    prompts = [f"Prompt {number}" for number in range(2048)]
    yield Attack("2048 prompts", COMPLETIONS, _with(prompt=prompts, max_tokens=1))
    yield Attack("1 MiB to tokenize", TOKENIZE, _prompt((1 << 20) - 1000))
    arguments = {f"argument{number}": {"type": "string"} for number in range(2000)}
    schema = {"type": "object", "properties": arguments, "required": list(arguments)}
    tool = {"name": "work", "strict": True, "parameters": schema}
    yield _chat(
        "strict tool",
        tools=[{"type": "function", "function": tool}],
        tool_choice={"type": "function", "function": {"name": "work"}},
        max_tokens=8,
    )
    patterns = {
        f"field{number}": {"type": "string", "pattern": f"^[^x]{{0,{1000 + number}}}$"}
        for number in range(SLOW_FIELDS)
    }
    slow = {"type": "object", "title": COPY.decode(), "properties": patterns}
    yield _structured("slow grammars", copies=8, json=slow)
    failure = _structured("one failure again and again", grammar="root ::= root | root root")
    yield replace(failure, repeats=20)


def _chat(name: str, **fields: object) -> Attack:
    return Attack(name, CHAT_PATH, _with(messages=HELLO, **fields))


def _structured(name: str, copies: int = 1, **structure: object) -> Attack:
    make_body = _with(messages=HELLO, structured_outputs=structure, max_tokens=8)
    return Attack(name, CHAT_PATH, make_body, copies)


def _prompt(size: int, **fields: object) -> Callable[[str], bytes]:
    return _with(prompt="w" * size, **fields)


def _with(**fields: object) -> Callable[[str], bytes]:
    return lambda model: json.dumps({"model": model, **fields}).encode()


def _json(model: str) -> bytes:
    return json.dumps(model).encode()
