"""Documents and search results of Anthropic's API, which engines render as texts.

Source: `deployments/engines/vllm/api/messages_blocks.py`, which writes these texts.
"""

from collections.abc import Callable, Iterator

import msgspec

from gateway.kvcache.json_text import decode_list, first_byte
from gateway.request.raw_fields import ABSENT

DOCUMENT, SEARCH_RESULT = "document", "search_result"
DOCUMENTS = frozenset({DOCUMENT, SEARCH_RESULT})
Decode = Callable[[msgspec.Raw], str]
"""Decodes a JSON string, or as much of it as is of use."""


class _Document(msgspec.Struct):
    type: str
    title: msgspec.Raw = ABSENT
    context: msgspec.Raw = ABSENT
    source: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT


class _DocumentSource(msgspec.Struct):
    type: str = ""
    data: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT


_document_decoder = msgspec.json.Decoder(_Document)
_source_decoder = msgspec.json.Decoder(_DocumentSource)


def document_pieces(raw: msgspec.Raw, decode: Decode) -> Iterator[str | msgspec.Raw]:
    """What engines render in place of a block of one of the `DOCUMENTS`, piece by piece.

    A text, or a block of the content: of text, an image, or one that engines refuse.

    Raises:
        msgspec.MsgspecError: the block has another form, which engines refuse.
        ValueError: it has too many pieces.
    """
    block = _document_decoder.decode(raw)
    if block.type == SEARCH_RESULT:
        yield f"{decode(block.title)}\n{decode(block.source)}\n"
        yield from _content_pieces(block.content, decode)
        return
    for head in (block.title, block.context):
        if first_byte(head) == b'"' and (text := decode(head)):
            yield f"{text}\n"
    source = _source_decoder.decode(block.source)
    if source.type == "text":
        yield decode(source.data)
    elif source.type == "content":
        yield from _content_pieces(source.content, decode)
    else:
        yield raw


def _content_pieces(raw: msgspec.Raw, decode: Decode) -> Iterator[str | msgspec.Raw]:
    if first_byte(raw) == b'"':
        yield decode(raw)
    else:
        yield from decode_list(raw)
