"""Canonical text of a conversation: what an engine renders of it, in the order of rendering.

Its parts are told apart by bytes that no UTF-8 text has, so that no text can pass for another
conversation. Parts that are not text (images, audio, unknown kinds) are represented by a hash.

Source: vLLM 0.32 (`vllm/renderers/chat_utils.py`), and the chat template's `PromptLayout`.
"""

import msgspec

from gateway.telemetry.facts import PromptLayout

MAX_ELEMENTS = 16_384
"""Messages and parts of messages that are read; what follows has no keys."""
_ROLE = b"\xff"
_CONTENT = b"\xfe"
_FIELD = b"\xfd"
_HASHED = b"\xfc"
_CALL = b"\xfb"
_REASONING = b"\xfa"
_TOOLS = b"\xf9"
_ASSISTANT = _ROLE + b"assistant"
_RESULT = _ROLE + b"tool"
_SYSTEM_START = _ROLE + b"system" + _CONTENT
_DEVELOPER_START = _ROLE + b"developer" + _CONTENT
REPLY_START = _ASSISTANT + _CONTENT
"""Canonical text between a conversation and the assistant's reply."""


class FunctionCall(msgspec.Struct, frozen=True):
    """A call of a tool; `arguments` are JSON in normal form."""

    id: str
    name: str
    arguments: bytes


class Answer(msgspec.Struct):
    """A message of the assistant."""

    text: bytes = b""
    reasoning: bytes = b""
    calls: list[FunctionCall] = []
    name: str = ""


class CanonicalText:
    """Canonical text of one conversation, written message by message.

    `tools`: canonical text of its tools. `size`: bytes of text that have keys.
    """

    __slots__ = (
        *("_front", "_has_developer", "_is_begun", "_pieces", "_reasoning", "_systems", "_tools"),
        *("elements_left", "has_media", "layout", "left", "skipped", "tool_changes"),
    )

    def __init__(self, layout: PromptLayout, tools: bytes, size: int) -> None:
        self.layout = layout
        self.left = size
        """Bytes of text that are still of use."""
        self.elements_left = MAX_ELEMENTS
        self.skipped = 0
        """Bytes of the request that were left out because text so far behind has no keys."""
        self.has_media = False
        self.tool_changes = b""
        """Stand-ins for parts that change the tools, which are rendered before them."""
        self._tools = _TOOLS + tools if tools else b""
        self._pieces: list[bytes] = []
        self._is_begun = False
        self._systems: list[int] = []
        """Where the system messages are in the pieces."""
        self._has_developer = False
        self._reasoning: list[int] = []
        """Pieces that are not rendered once the user has answered."""
        if layout.has_tools_first:
            self._write_tools()
        self._front = len(self._pieces)

    @property
    def is_full(self) -> bool:
        """Whether all further text is of no use."""
        return self.left <= 0 or self.elements_left <= 0

    def finish(self) -> bytes:
        """Return the whole text."""
        self._write_tools()
        if self._systems:
            self._join_systems()
        return b"".join(self._pieces)

    def write_message(self, role: str, content: bytes, name: str = "") -> None:
        """Write a message of anyone but the assistant."""
        if role == "system" or (role == "developer" and self.layout.developers != "own"):
            self._write_system(role, content)
            return
        self._begin()
        if role == "user" and self._reasoning:
            self._forget_reasoning()
        marked = _FIELD + name.encode() if name and self.layout.has_names else b""
        self._write(_ROLE + role.encode() + marked + _CONTENT, content)

    def write_tool_result(self, call_id: str, content: bytes) -> None:
        """Write the result of a tool call."""
        self._begin()
        marked = _FIELD + call_id.encode() if call_id and self.layout.has_call_ids else b""
        self._write(_RESULT + marked + _CONTENT, content)

    def write_answer(self, answer: Answer) -> None:
        """Write a message of the assistant: reasoning, text, tool calls."""
        self._begin()
        layout, text = self.layout, answer.text
        marked = _FIELD + answer.name.encode() if answer.name and layout.has_names else b""
        self._pieces.append(_ASSISTANT + marked + _CONTENT)
        if answer.reasoning and layout.reasoning != "never":
            if layout.reasoning == "until_user":
                self._reasoning.append(len(self._pieces))
            self._write(_REASONING + answer.reasoning, _CONTENT)
        if text:
            self._write(b"", text)
        for call in answer.calls:
            self._write_call(call, is_inside=bool(text) or call is not answer.calls[0])

    def write_stand_in(self, digest: int) -> None:
        """Write a stand-in for a message that cannot be read."""
        self._begin()
        self._write(b"", self.stand_in(digest))

    def stand_in(self, digest: int) -> bytes:
        """Return a stand-in for something that is not text."""
        self.has_media = True
        return b"%b%016x" % (_HASHED, digest)

    def _begin(self) -> None:
        if self._tools:
            self._write_tools()
        self._is_begun = True

    def _write_system(self, role: str, content: bytes) -> None:
        is_first = not self._is_begun
        if not is_first:
            self._begin()
        # The tools follow the first message, unless they are there already.
        self._is_begun = True
        self._has_developer |= role == "developer"
        if is_first and not content and self.layout.omits_empty_system:
            return
        self._systems.append(len(self._pieces))
        is_own = role == "developer" and not is_first and self.layout.developers != "joined"
        self._write(_DEVELOPER_START if is_own else _SYSTEM_START, content)

    def _join_systems(self) -> None:
        """Join all system messages to one that comes first, as vLLM does for some templates."""
        if self.layout.developers == "joined" and self._has_developer:
            separator = b"\n\n"
        elif self.layout.joins_system:
            separator = b""
        else:
            return
        texts = [self._pieces[position + 1] for position in self._systems]
        for position in self._systems:
            self._pieces[position] = self._pieces[position + 1] = b""
        joined = separator.join(filter(None, texts))
        if not joined and self.layout.omits_empty_system:
            return
        self._pieces[self._front : self._front] = _SYSTEM_START, joined

    def _write_tools(self) -> None:
        tools, self._tools = self._tools, b""
        if tools:
            self._write(b"", tools)

    def _write_call(self, call: FunctionCall, *, is_inside: bool) -> None:
        name = call.name.encode()
        if self.layout.has_hermes_calls:
            arguments = msgspec.json.format(call.arguments, indent=0)
            text = b'<tool_call>\n{"name": "%b", "arguments": %b}\n</tool_call>' % (name, arguments)
            self._write(b"\n" if is_inside else b"", text)
        else:
            id_ = call.id.encode() if self.layout.has_call_ids else b""
            self._write(_CALL + id_ + _FIELD + name + _FIELD, call.arguments)

    def _forget_reasoning(self) -> None:
        for position in self._reasoning:
            self._pieces[position] = self._pieces[position + 1] = b""
        self._reasoning.clear()

    def _write(self, mark: bytes, text: bytes) -> None:
        self._pieces += mark, text
        self.left -= len(mark) + len(text)
