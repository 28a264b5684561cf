"""One request of a conversation, and what a workload is: a source of conversations."""

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from loadtests.texts import BYTES_PER_TOKEN


class Function(msgspec.Struct, frozen=True):
    """What a tool call calls, as OpenAI words it."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call that a model has made."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A request: all messages so far, the longest answer, and the pause before it is sent."""

    messages: Sequence[Message]
    answer_tokens: int
    pause_s: float = 0.0
    is_batch: bool = False

    @property
    def prompt_tokens(self) -> int:
        """About as many tokens as the prompt has."""
        return sum(len(message.content) for message in self.messages) // BYTES_PER_TOKEN


Session = Generator[Turn, str, None]
"""A conversation: yields its turns, and is sent the answer to each."""


class Workload(Protocol):
    """Conversations of one kind; users have them one after the other."""

    def session(self, rng: random.Random) -> Session:
        """Another conversation; `rng` alone decides what is in it."""
