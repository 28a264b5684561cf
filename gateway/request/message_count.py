"""Count of the messages of a conversation and their parts, which engines convert one by one.

Cost: two counts of bytes for most conversations. Only where these are many is the list told apart,
up to the limit.
"""

import re

import msgspec

from gateway.request.parse_cost import MAX_ITEMS, count_up_to, list_items, most_items
from gateway.request.raw_fields import ABSENT

MIN_CONTENT = 64
"""Bytes of a message that may have several parts."""
MAX_QUOTES = 1_000_000
"""Quotes and brackets of a text that is not looked into for its messages."""
_TEXTS = re.compile(rb'\[\s*"')


class _MessageContent(msgspec.Struct):
    content: msgspec.Raw = ABSENT


_message_decoder = msgspec.json.Decoder(_MessageContent)


def count_parts(raw: msgspec.Raw, limit: int) -> int:
    """Messages in a list, and parts of their contents; objects in those count as one.

    It may be more than there are if there may be very many. The count ends above `limit`, and is 0
    where it cannot be reached. A list of texts has prompts, not messages.
    """
    text = bytes(raw)
    if not _may_exceed(text, limit) or _TEXTS.match(text):
        return 0
    if (most := most_items(text)) > MAX_ITEMS:
        return most
    messages = list_items(raw)
    found = len(messages)
    for message in messages:
        if found > limit:
            break
        if len(message) > MIN_CONTENT:
            found += len(list_items(_content(message)))
    return found


def _may_exceed(text: bytes, limit: int) -> bool:
    """Whether a text may have more objects or strings; parts may be either."""
    most = max(MAX_QUOTES, limit)
    found = count_up_to(text, (b"{", b'"'), most)
    return found > most or found - text.count(rb"\"") > limit


def _content(message: msgspec.Raw) -> msgspec.Raw:
    try:
        return _message_decoder.decode(message).content
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ABSENT
