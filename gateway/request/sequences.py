"""Count of the sequences that engines make of a request: its answers, for each of its prompts.

Nothing is parsed to count the prompts of a list of texts or of token ids. What engines reject may
be counted as anything.
"""

import re

import msgspec

from gateway.request.lax_json import read_int
from gateway.request.parse_cost import MAX_ITEMS, list_items, most_items
from gateway.request.raw_fields import ABSENT, RawFields

MAX_COUNTED = 1_000_000
"""Answers or prompts that are counted; engines take far fewer."""
_LIST_START = re.compile(rb'\[\s*(["[{])')
_OBJECT = re.compile(rb",\s*+\{")
"""What a list has that is not only of texts, though texts may have it, too."""


def answers(fields: RawFields) -> int:
    """Answers to each prompt that the request asks for: its `n`."""
    if fields.n is ABSENT:
        return 1
    return min(max(1, read_int(fields.n) or 1), MAX_COUNTED)


def prompt_count(fields: RawFields) -> int:
    """Prompts of a request to complete, embed, pool or classify texts, or to a batch of chats."""
    return max(
        *(_count(raw) for raw in (fields.prompt, fields.input, fields.prompt_embeds)),
        _conversations(fields.messages),
    )


def pair_count(fields: RawFields) -> int:
    """Pairs of a request to score or rank texts: one list may go with a single text."""
    sides = (
        *(fields.data_1, fields.data_2, fields.text_1, fields.text_2, fields.queries),
        *(fields.documents, fields.items, fields.texts, fields.inputs, fields.images),
    )
    return max(_count(raw, has_objects=True) for raw in sides)


def count_items(raw: msgspec.Raw) -> int:
    """Items of a JSON list; 1 for anything else, and an upper bound if they are many."""
    if (most := most_items(bytes(raw))) > MAX_ITEMS:
        return min(MAX_COUNTED, most)
    return len(list_items(raw)) or 1


def _count(raw: msgspec.Raw, *, has_objects: bool = False) -> int:
    start = None if raw is ABSENT else _LIST_START.match(raw)
    if start is None:
        return 1
    text = bytes(raw)
    if start[1] == b"[":
        count = text.count(b"[") - 1
    elif start[1] == b"{" or (has_objects and _OBJECT.search(text)):
        count = count_items(raw) if has_objects else 1
    else:
        plain = text.replace(rb"\\", b"") if b"\\" in text else text
        count = (plain.count(b'"') - plain.count(rb"\"")) // 2
    return min(max(1, count), MAX_COUNTED)


def _conversations(messages: msgspec.Raw) -> int:
    """Conversations of a batch, whose messages are lists."""
    start = None if messages is ABSENT else _LIST_START.match(messages)
    return count_items(messages) if start and start[1] == b"[" else 1
