"""Tokens that a request is expected to take, whatever of its prompt has keys."""

import json
import random

import msgspec
import pytest

from gateway.kvcache.prefix import prompt_of
from gateway.limits.expected_tokens import expected_tokens
from gateway.request.routes import CHAT, parse_head
from gateway.routing.decision import DecisionLog
from gateway.routing.scheduler import Scheduler
from tests.unit.targets import MODEL, target_of

TEXT = "word " * 20_000
USER = {"role": "user", "content": "x"}
CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": TEXT}}]
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 400_000}"}}


def expected(path: str, fields: dict[str, object]) -> int:
    """Tokens of the prompts of a request with this body."""
    head = parse_head(path, json.dumps({"model": "m", **fields}).encode(), b"")
    target = target_of(prompt_of(head, path=path))
    request = msgspec.structs.replace(target.request, head=head, path=path)
    rng = random.Random(3)  # noqa: S311 - ids and ties, no secrets
    scheduler = Scheduler(MODEL, DecisionLog(), rng, lambda: 1000.0)
    return expected_tokens(msgspec.structs.replace(target, request=request), scheduler)[0]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": [{"role": "assistant", "tool_calls": CALLS}, USER]}),
        (CHAT, {"messages": [USER], "documents": [{"text": TEXT}]}),
        ("/v1/completions", {"prompt": "x", "suffix": "y", "documents": TEXT}),
        ("/score", {"text_1": TEXT, "text_2": "x"}),
        ("/rerank", {"query": "x", "documents": [TEXT]}),
        ("/v2/embed", {"texts": [TEXT]}),
        ("/generative_scoring", {"query": TEXT, "items": ["x"]}),
    ],
)
def test_no_prompt_is_taken_for_a_short_one(path: str, fields: dict[str, object]) -> None:
    """Where nobody reads it, its size counts: a client would reserve nothing for a long prompt."""
    whole = expected("/v1/completions", {"prompt": TEXT})
    assert expected(path, fields) >= whole / 5


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": [{"role": "user", "content": [PICTURE]}]}),
        ("/v2/embed", {"images": [PICTURE["image_url"]]}),
        ("/v2/embed", {"inputs": [{"content": [PICTURE]}]}),
    ],
)
def test_media_are_not_taken_for_texts(path: str, fields: dict[str, object]) -> None:
    """A picture has far fewer tokens than its data has bytes."""
    assert expected(path, fields) < 100
