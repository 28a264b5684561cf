"""Size of the prompts of a request: of the text that an engine would have to tokenize.

Images and other media are left out: they are encoded as text, but not tokenized. Only fields above
the limit are looked into, and no more of them than their size in tokens allows.
"""

import re
from collections.abc import Iterator

import msgspec

from gateway.request.media_parts import media_bytes
from gateway.request.parse_cost import MAX_ITEMS, count_up_to, list_items, most_items, parse_cost
from gateway.request.raw_fields import RawFields

MIN_PARSE_COST = 200_000
COST_PER_TOKEN = 4
"""Cost of parsing that a conversation has for each token at most: more is no conversation."""
LEVELS = 2
"""Levels of lists that prompts are in: conversations, texts and lists of token ids in a batch."""
_START = re.compile(rb'\s*(\[?)\s*(["[{]?)')
_NOT_TEXT = frozenset({"images", "prompt_embeds", "data", "prediction"})


class PromptSize(msgspec.Struct, frozen=True):
    """Size of the longest prompt in a field, and the size that it may have."""

    field: str
    found: int
    allowed: int
    unit: str


def too_long(fields: RawFields, most_bytes: int, most_tokens: int) -> PromptSize | None:
    """The first field with a prompt that is too long; None if there is none.

    `most_bytes`: of the JSON of one prompt. `most_tokens`: of one that is a list of token ids.
    """
    for name, raw in fields.prompts.items():
        if name not in _NOT_TEXT and len(raw) > min(most_bytes, most_tokens):
            for size in _PromptMeasure(name, most_bytes, most_tokens).sizes(raw):
                if size.found > size.allowed:
                    return size
    return None


class _PromptMeasure:
    """Measure of one field's prompts."""

    def __init__(self, field: str, most_bytes: int, most_tokens: int) -> None:
        self._field = field
        self._most_bytes = most_bytes
        self._most_tokens = most_tokens

    def sizes(self, raw: msgspec.Raw, levels: int = LEVELS) -> Iterator[PromptSize]:
        """Yield sizes of all prompts in a field, or in a list of it."""
        start = _START.match(raw)
        bracket, first = start.groups() if start else (b"", b"")
        if bracket and not first:
            yield self._tokens(bytes(raw))
        elif len(raw) <= self._most_bytes and first != b"[":
            return
        elif bracket and first in b'["' and levels:
            yield from self._sizes_in_list(raw, first, levels)
        else:
            yield self._characters(self._text_bytes(raw))

    def _sizes_in_list(self, raw: msgspec.Raw, first: bytes, levels: int) -> Iterator[PromptSize]:
        text = bytes(raw)
        if most_items(text) <= MAX_ITEMS:
            for prompt in list_items(raw):
                if len(prompt) > min(self._most_bytes, self._most_tokens):
                    yield from self.sizes(prompt, levels - 1)
        elif first == b"[" and count_up_to(text, (b"]",), MAX_ITEMS) <= MAX_ITEMS:
            yield from map(self._tokens, text.split(b"]"))
        else:
            yield self._characters(len(text))

    def _text_bytes(self, raw: msgspec.Raw) -> int:
        """Bytes of a text, or of a conversation without its media."""
        text = bytes(raw)
        most_cost = max(MIN_PARSE_COST, COST_PER_TOKEN * self._most_tokens)
        if text[:1] == b'"' or parse_cost(text, most_cost) > most_cost:
            return len(text)
        return len(text) - media_bytes(raw)

    def _characters(self, found: int) -> PromptSize:
        return PromptSize(self._field, found, self._most_bytes, "characters")

    def _tokens(self, text: bytes) -> PromptSize:
        found = 1 + count_up_to(text, (b",",), self._most_tokens)
        return PromptSize(self._field, found, self._most_tokens, "token ids")
