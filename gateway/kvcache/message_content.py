"""Content of messages: text, reasoning, tool calls, and results of tools.

Source: vLLM 0.32, `vllm/entrypoints/anthropic/serving.py`, `vllm/renderers/chat_utils.py`.
"""

from collections.abc import Iterator, Sequence

import msgspec

from gateway.kvcache.canonical_text import CanonicalText, FunctionCall
from gateway.kvcache.document_blocks import DOCUMENTS, document_pieces
from gateway.kvcache.json_text import decode_list, decode_string, digest_of, first_byte
from gateway.kvcache.media import media_digest
from gateway.kvcache.text_files import FILE, file_text
from gateway.kvcache.tool_definitions import normal_arguments
from gateway.request.raw_fields import ABSENT
from gateway.request.reasoning_token import open_token

BILLING_HEADER = "x-anthropic-billing-header"
"""Start of a line in Claude Code's system prompt that changes all the time; vLLM leaves it out."""
LARGE_BYTES = 1 << 18
"""A larger message or part is not decoded at once."""
FAILED_RESULT = "The tool failed."
"""What engines render as the result of a tool that failed and said nothing."""
_RESULT_SEPARATOR = b"\n"
"""Text between the text parts of a tool's result, in vLLM."""
_TEXTS = frozenset({"text", "input_text", "output_text"})
_TRUE = msgspec.Raw(b"true")
_TOOL_CHANGES = frozenset({"tool_addition", "tool_removal"})
_HASHED = frozenset({"tool_use", "thinking"})
_FEW = 1000
_SHORTEST = 2
"""Bytes of the shortest part and its comma."""


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: msgspec.Raw = ABSENT
    refusal: str | None = None
    id: str | None = None
    name: str | None = None
    tool_use_id: str | None = None
    input: msgspec.Raw = ABSENT
    content: str | list[msgspec.Raw] | None = None
    is_error: msgspec.Raw = ABSENT


class _LargePart(msgspec.Struct):
    type: str = ""
    text: msgspec.Raw = ABSENT
    tool_use_id: str | None = None
    content: msgspec.Raw = ABSENT
    is_error: msgspec.Raw = ABSENT


_part_decoder = msgspec.json.Decoder(_Part)
_large_part_decoder = msgspec.json.Decoder(_LargePart)


class Content(msgspec.Struct):
    """What a message's content consists of."""

    texts: list[bytes] = []
    """Its text, in pieces."""
    reasoning: list[str] = []
    calls: list[FunctionCall] = []
    has_results: bool = False
    """Results of tools were written as messages of their own."""
    is_text_last: bool = False
    separator: bytes = b""
    """What stands between its text parts."""

    @property
    def text(self) -> bytes:
        """The whole text."""
        return self.texts[0] if len(self.texts) == 1 else b"".join(self.texts)

    def add_text(self, text: bytes, separator: bytes) -> None:
        """Add a text part."""
        if separator and self.is_text_last:
            self.texts.append(separator)
        self.texts.append(text)
        self.is_text_last = True

    def add_stand_in(self, stand_in: bytes) -> None:
        """Add a stand-in for a part that is not text."""
        self.texts.append(stand_in)
        self.is_text_last = False


_NOTHING = Content()


class ContentReader:
    """Reads contents of the messages of one conversation."""

    __slots__ = ("_separator", "_text")

    def __init__(self, text: CanonicalText) -> None:
        self._text = text
        self._separator = text.layout.separator.encode()

    def read(
        self,
        raws: str | Sequence[msgspec.Raw] | None,
        role: str,
        separator: bytes | None = None,
    ) -> Content:
        """Read a message's content; results of tools are written at once, as vLLM does.

        `separator`: what stands between its text parts, if not what the layout says.
        """
        if not raws:
            return _NOTHING
        if isinstance(raws, str):
            text = _without_billing_header(raws) if role == "system" else raws
            return Content([text.encode()])
        content = Content(separator=self._separator if separator is None else separator)
        for raw in self._useful(raws):
            self._add_part(content, raw, role)
        return content

    def read_large(self, raw: msgspec.Raw, role: str, separator: bytes | None = None) -> Content:
        """Read a content that is too large to be decoded at once."""
        first = first_byte(raw)
        if first == b'"':
            return self.read(self.decode(raw), role)
        return self.read(decode_list(raw) if first == b"[" else None, role, separator)

    def system_prompt(self, raw: msgspec.Raw) -> bytes:
        """Read a system prompt that is a field of its own.

        Only its texts are rendered, without the block that has the billing header.
        """
        if first_byte(raw) != b"[":
            return _without_billing_header(self.decode(raw)).encode()
        return self.system_text(decode_list(raw))

    def system_text(self, raws: str | Sequence[msgspec.Raw]) -> bytes:
        """Read the content of a system message in Anthropic's API."""
        if isinstance(raws, str):
            return b"" if raws.startswith(BILLING_HEADER) else raws.encode()
        return b"".join(map(self._system_block, self._useful(raws)))

    def decode(self, raw: msgspec.Raw) -> str:
        """Decode a string, up to the end of what has keys."""
        left = max(0, self._text.left)
        self._text.skipped += max(0, len(raw) - left - 2)
        return decode_string(raw, left + 1)

    def _useful(self, raws: Sequence[msgspec.Raw]) -> Iterator[msgspec.Raw]:
        """Yield parts until no more of them have keys."""
        for position, raw in enumerate(raws):
            if self._text.is_full:
                rest = raws[position : position + _FEW]
                self._text.skipped += sum(len(each) for each in rest)
                self._text.skipped += _SHORTEST * max(0, len(raws) - position - _FEW)
                return
            self._text.elements_left -= 1
            yield raw

    def _add_part(self, content: Content, raw: msgspec.Raw, role: str) -> None:
        try:
            small = len(raw) <= LARGE_BYTES
            part = _part_decoder.decode(raw) if small else self._large_part(raw)
        except msgspec.ValidationError:
            content.add_stand_in(self._text.stand_in(digest_of(raw)))
            return
        kind, text = part.type, part.text
        if kind in _TEXTS and text is not None:
            self._add_text(content, text, role)
        elif kind == "tool_result":
            content.has_results = True
            self._write_result(part)
        elif kind in DOCUMENTS:
            self._add_document(content, raw, role)
        elif kind == FILE and (file := file_text(raw, max(0, self._text.left))) is not None:
            self._text.skipped += file.skipped
            self._add_text(content, file.text, role)
        elif not self._add_block(content, part, role):
            content.add_stand_in(self._text.stand_in(media_digest(raw)))
            self._note_change(raw)

    def _add_text(self, content: Content, text: str, role: str) -> None:
        if role == "system":
            text = _without_billing_header(text)
        is_result = role == "tool"
        # Without a separator vLLM leaves the joining to the template, but not that of results.
        if text or (is_result and not self._separator):
            content.add_text(text.encode(), _RESULT_SEPARATOR if is_result else content.separator)

    def _add_block(self, content: Content, part: _Part, role: str) -> bool:
        """Add a part that becomes text or a field of the message; return whether it is one."""
        if part.type == "refusal" and part.refusal is not None:
            self._add_text(content, part.refusal, role)
        elif part.type == "tool_use" and role == "assistant":
            arguments = normal_arguments(part.input)
            content.calls.append(FunctionCall(part.id or "", part.name or "", arguments))
        elif part.type == "thinking" and role == "assistant":
            content.reasoning.append(part.thinking or _signed_thoughts(part.signature))
        else:
            return part.type == "redacted_thinking"
        return True

    def _add_document(self, content: Content, raw: msgspec.Raw, role: str) -> None:
        """Add a document or a search result, which engines render as texts."""
        for piece in self._pieces(raw):
            if isinstance(piece, str):
                self._add_text(content, piece, role)
            else:
                content.add_stand_in(self._text.stand_in(media_digest(piece)))

    def _pieces(self, raw: msgspec.Raw) -> Iterator[str | msgspec.Raw]:
        """The texts, and the blocks that are none, that engines render of a block."""
        if (text := self._text_of(raw)) is not None:
            yield text
        elif _kind_of(raw) not in DOCUMENTS:
            yield raw
        else:
            for piece in document_pieces(raw, self.decode):
                self._text.elements_left -= 1
                text = piece if isinstance(piece, str) else self._text_of(piece)
                yield piece if text is None else text

    def _write_result(self, part: _Part) -> None:
        """Write a tool's result; its images become a message of the user."""
        texts: list[bytes] = []
        images: list[bytes] = []
        if isinstance(part.content, str):
            texts.append(part.content.encode())
        else:
            for raw in self._useful(part.content or ()):
                for piece in self._pieces(raw):
                    if isinstance(piece, str):
                        texts.append(piece.encode())
                    else:
                        images.append(self._text.stand_in(media_digest(piece)))
        if part.is_error == _TRUE and not (part.content and (texts or images)):
            texts = [FAILED_RESULT.encode()]
        self._text.write_tool_result(part.tool_use_id or "", _RESULT_SEPARATOR.join(texts))
        if images:
            self._text.write_message("user", b"".join(images))

    def _system_block(self, raw: msgspec.Raw) -> bytes:
        text = self._text_of(raw)
        if text is None:
            self._note_change(raw)
            return b""
        return b"" if text.startswith(BILLING_HEADER) else text.encode()

    def _note_change(self, raw: msgspec.Raw) -> None:
        """Note a part that changes the tools of the whole conversation."""
        if len(raw) <= LARGE_BYTES and _large_part_decoder.decode(raw).type in _TOOL_CHANGES:
            self._text.tool_changes += self._text.stand_in(digest_of(raw))

    def _text_of(self, raw: msgspec.Raw) -> str | None:
        """Text of a part; None if it is no text."""
        try:
            part = _large_part_decoder.decode(raw)
            is_text = part.type in _TEXTS and part.text is not ABSENT
            return self.decode(part.text) if is_text else None
        except msgspec.ValidationError:
            return None

    def _large_part(self, raw: msgspec.Raw) -> _Part:
        part = _large_part_decoder.decode(raw)
        if part.text is not ABSENT:
            return _Part(part.type, self.decode(part.text))
        # A call, or thoughts, as large as this are told from others by a hash.
        kind = "" if part.type in _HASHED else part.type
        large = _Part(kind, tool_use_id=part.tool_use_id, is_error=part.is_error)
        first = first_byte(part.content)
        if first == b'"':
            large.content = self.decode(part.content)
        elif first == b"[":
            large.content = decode_list(part.content)
        return large


def _kind_of(raw: msgspec.Raw) -> str:
    try:
        return _large_part_decoder.decode(raw).type
    except msgspec.ValidationError:
        return ""


def _signed_thoughts(signature: msgspec.Raw) -> str:
    """Thoughts in a signature of ours: those that an answer has left out."""
    if first_byte(signature) != b'"':
        return ""
    return open_token(decode_string(signature, len(signature))) or ""


def _without_billing_header(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(BILLING_HEADER) else text
