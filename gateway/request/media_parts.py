"""Media in conversations: images and the like, which are encoded as text but not tokenized.

Only the data of media counts as media, never a text beside it: a part says itself what it is.
"""

import re
from collections.abc import Iterator

import msgspec

from gateway.request.parse_cost import list_items
from gateway.request.raw_fields import ABSENT

SMALL_PART = 1024
"""Bytes of a part of a message that is taken for text."""
LEVELS = 3
"""Levels of parts: messages, their parts, and the parts of a tool's result."""
_MEDIA_TYPE = re.compile(r"image|audio|video|file|media|document|screenshot")
_DATA_SOURCES = frozenset({"base64", "url", "file"})


class _PartWithMedia(msgspec.Struct):
    """A message, or a part of one: all fields whose text may be long and is no prompt."""

    role: msgspec.Raw = ABSENT
    type: str | None = None
    content: msgspec.Raw = ABSENT
    output: msgspec.Raw = ABSENT
    image_url: msgspec.Raw = ABSENT
    audio_url: msgspec.Raw = ABSENT
    video_url: msgspec.Raw = ABSENT
    input_audio: msgspec.Raw = ABSENT
    image: msgspec.Raw = ABSENT
    audio: msgspec.Raw = ABSENT
    video: msgspec.Raw = ABSENT
    image_embeds: msgspec.Raw = ABSENT
    audio_embeds: msgspec.Raw = ABSENT
    image_pil: msgspec.Raw = ABSENT
    file: msgspec.Raw = ABSENT
    file_data: msgspec.Raw = ABSENT
    source: msgspec.Raw = ABSENT
    result: msgspec.Raw = ABSENT

    @property
    def media(self) -> tuple[msgspec.Raw, ...]:
        """Data of media. Engines tell parts without a type by their keys."""
        if self.role is not ABSENT:
            return ()
        links = (self.image_url, self.audio_url, self.video_url, self.input_audio)
        if self.type is None:
            return links
        if not _MEDIA_TYPE.search(self.type):
            return ()
        source = (self.source,) if _is_data(self.source) else ()
        others = (self.image, self.audio, self.video, self.image_embeds, self.audio_embeds)
        return (
            *(*links, *others, *source),
            *(self.image_pil, self.file, self.file_data, self.result),
        )


class _SourceType(msgspec.Struct):
    """Where a part of Anthropic's API has its data; it may be a text, too."""

    type: str = "base64"


_part_decoder = msgspec.json.Decoder(_PartWithMedia)
_source_decoder = msgspec.json.Decoder(_SourceType)


def media_bytes(raw: msgspec.Raw, levels: int = LEVELS) -> int:
    """Bytes of the media in a list of messages or parts, or in one of them, `levels` deep."""
    parts = list_items(raw) if bytes(raw)[:1] == b"[" else [raw]
    return sum(_bytes_in(part, levels) for part in parts if len(part) > SMALL_PART)


def _bytes_in(raw: msgspec.Raw, levels: int) -> int:
    try:
        part = _part_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0
    found = sum(map(len, part.media))
    if levels > 1:
        found += sum(media_bytes(inner, levels - 1) for inner in _inner(part))
    return found


def _inner(part: _PartWithMedia) -> Iterator[msgspec.Raw]:
    """Lists of parts in a part, or one part as the output of a tool."""
    if bytes(part.content)[:1] == b"[":
        yield part.content
    if bytes(part.output)[:1] in (b"[", b"{"):
        yield part.output


def _is_data(source: msgspec.Raw) -> bool:
    try:
        return source is not ABSENT and _source_decoder.decode(source).type in _DATA_SOURCES
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
