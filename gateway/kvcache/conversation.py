"""Messages of a conversation, in the forms of OpenAI's and Anthropic's APIs.

All forms become the messages that vLLM makes of them before it renders them, so that the same
conversation has the same canonical text in every API and in every spelling.
"""

import msgspec

from gateway.kvcache.canonical_text import Answer, CanonicalText, FunctionCall
from gateway.kvcache.json_text import decode_list, digest_of, first_byte, is_costly
from gateway.kvcache.message_content import LARGE_BYTES, Content, ContentReader
from gateway.kvcache.tool_definitions import normal_arguments
from gateway.request.raw_fields import ABSENT


class _CalledFunction(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = ABSENT


class _Call(msgspec.Struct):
    function: _CalledFunction
    id: str | None = None


class _Message(msgspec.Struct):
    """Fields of a message that are rendered."""

    role: str
    content: str | list[msgspec.Raw] | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _LargeMessage(msgspec.Struct):
    """A message that is too large to be decoded at once."""

    role: str
    content: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT
    tool_call_id: str | None = None
    reasoning: msgspec.Raw = ABSENT
    reasoning_content: msgspec.Raw = ABSENT
    name: str | None = None


_message_decoder = msgspec.json.Decoder(_Message)
_large_message_decoder = msgspec.json.Decoder(_LargeMessage)
_calls_decoder = msgspec.json.Decoder(list[_Call] | None)


class ConversationWriter:
    """Writes the messages of a request to a canonical text."""

    def __init__(self, text: CanonicalText, *, is_anthropic: bool = False) -> None:
        self._text = text
        self._is_anthropic = is_anthropic
        self._contents = ContentReader(text)
        self.is_continued = False
        """Whether the reply goes on with the last message."""

    def add_system(self, raw: msgspec.Raw) -> None:
        """Add a system prompt that is a field of its own."""
        if text := self._contents.system_prompt(raw):
            self._text.write_message("system", text)

    def add_user(self, raw: msgspec.Raw) -> None:
        """Add what the user says, as a JSON string."""
        self._text.write_message("user", self._contents.decode(raw).encode())

    def add_messages(self, raw: msgspec.Raw) -> None:
        """Add a JSON list of messages.

        Raises:
            msgspec.MsgspecError: it is no list.
            ValueError: it has too many elements.
        """
        rest = len(raw)
        messages = decode_list(raw)
        for place, message in enumerate(messages, 1):
            if self._text.is_full:
                self._text.skipped += rest
                return
            rest -= len(message)
            self._text.elements_left -= 1
            is_last = self._is_anthropic and place == len(messages)
            try:
                if not (is_last and self._add_beginning(message, is_only=place == 1)):
                    self.add_message(message)
            except msgspec.ValidationError:
                self._text.write_stand_in(digest_of(message))

    def add_message(self, raw: msgspec.Raw) -> None:
        """Add one message.

        Raises:
            msgspec.ValidationError: it cannot be read.
        """
        if len(raw) > LARGE_BYTES:
            self._add_large(_large_message_decoder.decode(raw))
            return
        message = _message_decoder.decode(raw)
        role, content = message.role, message.content
        if isinstance(content, str) and role == "user":  # most messages
            self._text.write_message(role, content.encode(), message.name or "")
        else:
            self._write(message, self._read(content, role))

    def _add_beginning(self, raw: msgspec.Raw, *, is_only: bool) -> bool:
        """Add a last message with which the answer begins; return whether it is one.

        Engines join its texts to one, and leave one out that says nothing.
        """
        message = _large_message_decoder.decode(raw)
        if message.role != "assistant":
            return False
        content = self._contents.read_large(message.content, message.role, separator=b"")
        if not content.text and is_only:
            return False
        if content.text:
            self.is_continued = True
            self._text.write_answer(
                Answer(content.text, "".join(content.reasoning).encode(), content.calls)
            )
        return True

    def _read(self, content: str | list[msgspec.Raw] | None, role: str) -> Content | None:
        """Read a message's content; None if there is nothing to render."""
        if not self._is_anthropic:
            return self._contents.read(content, role)
        if role == "system":
            text = self._contents.system_text(content or "")
            return Content([text]) if text else None
        found = self._contents.read(content, role)
        is_empty = role == "user" and not (found.texts or isinstance(content, str))
        return None if is_empty else found

    def _add_large(self, large: _LargeMessage) -> None:
        message = _Message(large.role, name=large.name, tool_call_id=large.tool_call_id)
        reasoning = large.reasoning if large.reasoning is not ABSENT else large.reasoning_content
        if first_byte(reasoning) == b'"':
            message.reasoning = self._contents.decode(reasoning)
        if large.tool_calls is not ABSENT:
            if is_costly(bytes(large.tool_calls)):
                raise msgspec.ValidationError
            message.tool_calls = _calls_decoder.decode(large.tool_calls)
        self._write(message, self._contents.read_large(large.content, large.role))

    def _write(self, message: _Message, content: Content | None) -> None:
        role = message.role
        if content is None:
            return
        if role == "assistant":
            self._text.write_answer(self._answer(message, content))
        elif role == "tool":
            self._text.write_tool_result(message.tool_call_id or "", content.text)
        elif content.texts or not content.has_results:
            self._text.write_message(role, content.text, message.name or "")

    def _answer(self, message: _Message, content: Content) -> Answer:
        reasoning = message.reasoning or message.reasoning_content or ""
        if content.reasoning and not reasoning:
            reasoning = "".join(content.reasoning)
        calls = content.calls
        if message.tool_calls:
            self._text.elements_left -= len(message.tool_calls)
            calls = calls + [
                FunctionCall(
                    each.id or "", each.function.name, normal_arguments(each.function.arguments)
                )
                for each in message.tool_calls
            ]
        return Answer(content.text, reasoning.encode(), calls, message.name or "")
