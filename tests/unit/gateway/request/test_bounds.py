"""Bounds of the checks of a request: whatever a client sends costs little, in every field."""

import contextlib

import pytest

from gateway.config.limits import Limits
from gateway.errors.request import InvalidRequest
from gateway.request.raw_fields import PROMPT_FIELDS
from gateway.request.request_limits import check_context, check_limits
from gateway.request.routes import CHAT, parse_head
from tests.unit.work import repeated, work_of

SIZE = 3_000_000
MAX_CALLS = 200_000
"""Calls of functions; a body of this size can have a million elements."""
MAX_MEMORY = 60_000_000
FIELDS = (
    *PROMPT_FIELDS,
    *("tools", "n", "stop", "logit_bias", "text", "structured_outputs", "guided_choice"),
)
LIMITS = Limits(messages=10**9, prompts=10**9, tools=10**9, parameter_bytes=10**9)
"""Limits that hide no other."""


def content(parts: bytes) -> bytes:
    """A list of one message."""
    return b'[{"role":"user","content":%b}]' % parts


TEXTS = repeated(b'""', SIZE)
HOSTILE = {
    "numbers": repeated(b"1", SIZE),
    "texts": TEXTS,
    "lists": repeated(b"[]", SIZE),
    "empty objects": repeated(b"{}", SIZE),
    "messages": repeated(b'{"role":"user","content":"x"}', SIZE),
    "lists in messages": repeated(b'{"role":"user","content":["a"],"input":{}}', SIZE),
    "texts in a message": content(TEXTS),
    "numbers in a message": content(repeated(b"1", SIZE)),
    "parts": content(repeated(b'{"type":"text","text":"x"}', SIZE)),
    "results": content(b'[{"type":"tool_result","content":%b}]' % TEXTS),
    "text, then others": b'["",' + repeated(b"1", SIZE)[1:],
    "list, then others": b"[[]," + repeated(b"1", SIZE)[1:],
    "nested texts": b"[%b]" % TEXTS,
    "deep texts": b"[" * 500 + TEXTS + b"]" * 500,
    "tools": repeated(b'{"name":"f","strict":true,"parameters":{"a":{},"b":{}}}', SIZE),
    "escapes": b'"%b"' % (rb"\u0041" * (SIZE // 6)),
    "lists of escapes": repeated(b'"%b"' % (rb"\"" * 3000), SIZE),
}


def cost(body: bytes) -> tuple[int, int]:
    """Calls of functions that the checks of a request take, and bytes of memory."""
    head = parse_head(CHAT, body, b"")

    def check() -> None:
        with contextlib.suppress(InvalidRequest):
            check_limits(head, LIMITS)
            check_context(head, CHAT, LIMITS, 2048)

    return work_of(check)


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_field_costs_more_than_its_text_is_worth(kind: str) -> None:
    """Megabytes of tiny elements cost little in every field."""
    for field in FIELDS:
        body = b'{"model":"m","%b":%b}' % (field.encode(), HOSTILE[kind])
        try:
            calls, memory = cost(body)
        except InvalidRequest:
            continue
        assert calls < MAX_CALLS, field
        assert memory < MAX_MEMORY, field
