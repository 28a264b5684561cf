"""Size of the prompts of a request: of the text that an engine would have to tokenize.

Images and other media are left out: they are encoded as text, but not tokenized. Only fields above
the limit are looked into, and no more of them than their size in tokens allows.
"""

import re
from collections.abc import Iterator

import msgspec

from gateway.request.parse_cost import parse_cost
from gateway.request.raw_fields import ABSENT, RawFields

SMALL_PART = 1024
"""Bytes of a part of a message that is taken for text."""
MIN_CONTENT = 64
"""Bytes of a message that may have several parts."""
MIN_PARSE_COST = 200_000
COST_PER_TOKEN = 4
"""Cost of parsing that a conversation has for each token at most: more is no conversation."""
_START = re.compile(rb'\s*(\[?)\s*(["[{]?)')
_MEDIA_TYPE = re.compile(rb"image|audio|video|file|media|document")
_NOT_TEXT = frozenset({"images", "prompt_embeds"})
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


class PromptSize(msgspec.Struct, frozen=True):
    """Size of the longest prompt in a field, and the size that it may have."""

    field: str
    found: int
    allowed: int
    unit: str


class _MaybeMedia(msgspec.Struct):
    """A message, or a part of one."""

    type: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT
    output: msgspec.Raw = ABSENT
    image_url: msgspec.Raw = ABSENT
    audio_url: msgspec.Raw = ABSENT
    video_url: msgspec.Raw = ABSENT
    input_audio: msgspec.Raw = ABSENT

    @property
    def is_media(self) -> bool:
        """Whether it is an image or the like. Engines tell parts without a type by their keys."""
        if self.type is not ABSENT:
            return bool(_MEDIA_TYPE.search(self.type))
        return not (
            self.image_url is self.audio_url is self.video_url is self.input_audio is ABSENT
        )


_part_decoder = msgspec.json.Decoder(_MaybeMedia)


def too_long(fields: RawFields, most_bytes: int, most_tokens: int) -> PromptSize | None:
    """The first field with a prompt that is too long; None if there is none.

    `most_bytes`: of the JSON of one prompt. `most_tokens`: of one that is a list of token ids.
    """
    for name, raw in fields.prompts.items():
        if name not in _NOT_TEXT and len(raw) > min(most_bytes, most_tokens):
            for size in _sizes(name, raw, most_bytes, most_tokens):
                if size.found > size.allowed:
                    return size
    return None


def count_parts(raw: msgspec.Raw) -> int:
    """Messages in a list, and parts of their contents; objects in those count as one."""
    items = _items(raw)
    contents = (_content(item) for item in items if len(item) > MIN_CONTENT)
    return len(items) + sum(len(_items(content)) for content in contents if _is_list(content))


def _items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    try:
        return _list_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _content(message: msgspec.Raw) -> msgspec.Raw:
    try:
        return _part_decoder.decode(message).content
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ABSENT


def _sizes(field: str, raw: msgspec.Raw, most_bytes: int, most_tokens: int) -> Iterator[PromptSize]:
    """Sizes of all prompts in a field."""
    start = _START.match(raw)
    bracket, first = start.groups() if start else (b"", b"")
    if bracket and not first:
        found = bytes(raw).count(b",") + 1
        yield PromptSize(field, found, most_tokens, "token ids")
    elif len(raw) <= most_bytes and first != b"[":
        return
    elif bracket and first in b'["':
        yield from _sizes_of_list(field, raw, most_bytes, most_tokens)
    else:
        most_cost = max(MIN_PARSE_COST, COST_PER_TOKEN * most_tokens)
        yield PromptSize(field, _text_bytes(raw, most_cost), most_bytes, "characters")


def _sizes_of_list(
    field: str, raw: msgspec.Raw, most_bytes: int, most_tokens: int
) -> Iterator[PromptSize]:
    for prompt in _items(raw):
        if len(prompt) > min(most_bytes, most_tokens):
            yield from _sizes(field, prompt, most_bytes, most_tokens)


def _text_bytes(raw: msgspec.Raw, most_cost: int) -> int:
    """Bytes of a text, or of a conversation without its media."""
    text = bytes(raw)
    if text[:1] == b'"' or parse_cost(text) > most_cost:
        return len(text)
    return len(text) - _media_bytes(raw, levels=3)


def _media_bytes(raw: msgspec.Raw, levels: int) -> int:
    """Bytes of the media in a list of messages or parts, or in one of them."""
    try:
        parts = _list_decoder.decode(raw) if bytes(raw)[:1] == b"[" else [raw]
        large = [_part_decoder.decode(part) for part in parts if len(part) > SMALL_PART]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0
    sizes = [len(part) for part in parts if len(part) > SMALL_PART]
    found = 0
    for part, size in zip(large, sizes, strict=True):
        if part.is_media:
            found += size
        elif levels > 1:
            inner = (part.content, part.output)
            found += sum(_media_bytes(raw, levels - 1) for raw in inner if _is_list(raw))
    return found


def _is_list(raw: msgspec.Raw) -> bool:
    return raw is not ABSENT and bytes(raw)[:1] == b"["
