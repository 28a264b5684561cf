"""Input items of OpenAI's Responses API: several of them may be one message of the assistant.

Source: vLLM 0.32, `vllm/entrypoints/openai/responses/utils.py`, and what engines here make of an
assistant's message before that (`deployments/engines/vllm/api/responses_input.py`).
"""

import msgspec

from gateway.kvcache.canonical_text import Answer, CanonicalText, FunctionCall
from gateway.kvcache.conversation import ConversationWriter
from gateway.kvcache.json_text import decode_list, decode_string, digest_of, first_byte, normal_json
from gateway.kvcache.message_content import ContentReader
from gateway.kvcache.tool_definitions import normal_arguments
from gateway.request.raw_fields import ABSENT
from gateway.request.reasoning_token import open_token

_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_OPEN = frozenset({"in_progress", "incomplete"})


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    status: str | None = None
    content: msgspec.Raw = ABSENT
    summary: msgspec.Raw = ABSENT
    encrypted_content: msgspec.Raw = ABSENT
    call_id: str | None = None
    name: str = ""
    namespace: str | None = None
    arguments: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    output: msgspec.Raw = ABSENT


class _TextPart(msgspec.Struct):
    text: msgspec.Raw = ABSENT
    refusal: msgspec.Raw = ABSENT


class _OpenAnswer(msgspec.Struct):
    """A message of the assistant to which further items may belong."""

    text: bytes | None = None
    reasoning: bytes | None = None
    calls: list[FunctionCall] = []


_item_decoder = msgspec.json.Decoder(_Item)
_part_decoder = msgspec.json.Decoder(_TextPart)


class ResponseItems:
    """Writes input items to a canonical text."""

    def __init__(self, text: CanonicalText) -> None:
        self._text = text
        self._conversation = ConversationWriter(text)
        self._contents = ContentReader(text)
        self._answer: _OpenAnswer | None = None
        self.is_continued = False
        """Whether the reply goes on with the last item."""

    def add(self, raw: msgspec.Raw) -> None:
        """Add a JSON list of items.

        Raises:
            msgspec.MsgspecError: it is no list.
            ValueError: it has too many elements.
        """
        rest = len(raw)
        for item in decode_list(raw):
            if self._text.is_full:
                self._text.skipped += rest
                break
            rest -= len(item)
            self._text.elements_left -= 1
            try:
                self._add(item)
            except msgspec.ValidationError:
                self._close()
                self._text.write_stand_in(digest_of(item))
        self._close()

    def _add(self, raw: msgspec.Raw) -> None:
        item = _item_decoder.decode(raw)
        self.is_continued = False
        match item.type:
            case "message":
                self._add_message(item, raw)
            case "reasoning":
                self._add_reasoning(item)
            case "function_call" | "custom_tool_call":
                self._add_call(item)
            case kind if kind in _OUTPUTS:
                self._close()
                content = self._contents.read_large(item.output, "tool")
                self._text.write_tool_result(item.call_id or "", content.text)
            case _:
                self._close()
                self._text.write_stand_in(digest_of(raw))

    def _add_message(self, item: _Item, raw: msgspec.Raw) -> None:
        text = self._joined_text(item.content) if item.role == "assistant" else None
        if text is None:
            self._close()
            self._conversation.add_message(raw)
            return
        if self._answer is None or self._answer.text is not None:
            self._close()
            self._answer = _OpenAnswer()
        self._answer.text = text
        self.is_continued = item.status in _OPEN

    def _add_reasoning(self, item: _Item) -> None:
        reasoning = self._first_text(item.content)
        if reasoning is None:
            reasoning = self._hidden_reasoning(item)
        if reasoning is None:
            reasoning = self._first_text(item.summary) or b""
        if self._answer is None or self._answer.reasoning is not None:
            self._close()
            self._answer = _OpenAnswer()
        self._answer.reasoning = reasoning
        self.is_continued = item.status in _OPEN

    @staticmethod
    def _hidden_reasoning(item: _Item) -> bytes | None:
        """Reasoning in a token of ours, which engines open."""
        if first_byte(item.encrypted_content) != b'"':
            return None
        token = decode_string(item.encrypted_content, len(item.encrypted_content))
        reasoning = open_token(token)
        return None if reasoning is None else reasoning.encode()

    def _add_call(self, item: _Item) -> None:
        if self._answer is None:
            self._answer = _OpenAnswer()
        if item.type == "function_call":
            arguments = normal_arguments(item.arguments)
        else:
            arguments = normal_json(msgspec.json.encode({"input": item.input}))
        name = f"{item.namespace}__{item.name}" if item.namespace else item.name
        self._answer.calls.append(FunctionCall(item.call_id or "", name, arguments))

    def _close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            self._text.write_answer(
                Answer(answer.text or b"", answer.reasoning or b"", answer.calls)
            )

    def _joined_text(self, raw: msgspec.Raw) -> bytes | None:
        """Text of a content, or of all its parts; None if it is neither."""
        if first_byte(raw) != b"[":
            return self._text_of(raw)
        parts = [_part_decoder.decode(part) for part in decode_list(raw)]
        self._text.elements_left -= len(parts)
        texts = [
            self._text_of(each.refusal if each.text is ABSENT else each.text) for each in parts
        ]
        return None if None in texts else b"".join(text or b"" for text in texts)

    def _first_text(self, raw: msgspec.Raw) -> bytes | None:
        """Text of a content, or of its first part, which is all that vLLM renders of it."""
        if first_byte(raw) == b"[" and (parts := decode_list(raw)):
            raw = _part_decoder.decode(parts[0]).text
        return self._text_of(raw)

    def _text_of(self, raw: msgspec.Raw) -> bytes | None:
        return self._contents.decode(raw).encode() if first_byte(raw) == b'"' else None
