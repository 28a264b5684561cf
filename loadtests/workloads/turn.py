"""Turns of a conversation, its growing history, and the interface of a workload."""

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from loadtests.workloads.sizes import Sizes
from loadtests.workloads.texts import BYTES_PER_TOKEN

FRAME_BYTES = 24
"""Bytes that a chat template puts around a message, and around each of its tool calls."""


class Function(msgspec.Struct, frozen=True):
    """OpenAI's function of a tool call."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """OpenAI's tool call."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class DialogueMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """OpenAI's chat message."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A request: all messages so far, the answer's length limit, and the think time before it."""

    messages: Sequence[DialogueMessage]
    answer_tokens: int
    pause_s: float = 0.0
    is_batch: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Estimated length of the prompt."""
        return sum(len(message.content) for message in self.messages) // BYTES_PER_TOKEN


Session = Generator[Turn, str, None]
"""A conversation: yields its turns and is sent the answer to each."""


class ConversationSource(Protocol):
    """Source of conversations of one kind."""

    def session(self, rng: random.Random) -> Session:
        """Another conversation, determined by `rng` alone."""


class History:
    """Messages of a conversation so far, never longer than the longest prompt."""

    def __init__(self, sizes: Sizes, *messages: DialogueMessage) -> None:
        self._max_bytes = sizes.longest_prompt_tokens * BYTES_PER_TOKEN
        self._messages = list(messages)

    @property
    def room_tokens(self) -> int:
        """Tokens left for further messages."""
        used = sum(_size(message) for message in self._messages)
        return max(0, self._max_bytes - used) // BYTES_PER_TOKEN

    def add(self, message: DialogueMessage) -> None:
        """Append a message, cut to the room that is left."""
        content = message.content[: self.room_tokens * BYTES_PER_TOKEN]
        self._messages.append(msgspec.structs.replace(message, content=content))

    def turn(self, answer_tokens: int, pause_s: float = 0.0) -> Turn:
        """The request that sends the whole history."""
        return Turn(messages=(*self._messages,), answer_tokens=answer_tokens, pause_s=pause_s)


def _size(message: DialogueMessage) -> int:
    calls = [len(call.function.name + call.function.arguments) for call in message.tool_calls]
    return len(message.content) + sum(calls) + FRAME_BYTES * (1 + len(calls))
