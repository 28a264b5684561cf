"""The messages of a conversation as it grows, never beyond the longest prompt."""

from loadtests.texts import BYTES_PER_TOKEN
from loadtests.workloads.sizes import Sizes
from loadtests.workloads.turn import Message, Turn

FRAME_BYTES = 24
"""What a chat template puts around a message, and again around each of its tool calls."""


class History:
    """What has been said so far."""

    def __init__(self, sizes: Sizes, *messages: Message) -> None:
        self._most_bytes = sizes.longest_prompt_tokens * BYTES_PER_TOKEN
        self._messages = list(messages)

    @property
    def room_tokens(self) -> int:
        """How much more may be said."""
        used = sum(_size(message) for message in self._messages)
        return max(0, self._most_bytes - used) // BYTES_PER_TOKEN

    def add(self, message: Message) -> None:
        """Somebody says something; what there is no room for stays unsaid."""
        content = message.content[: self.room_tokens * BYTES_PER_TOKEN]
        cut = Message(message.role, content, message.tool_calls, message.tool_call_id)
        self._messages.append(cut)

    def turn(self, answer_tokens: int, pause_s: float = 0.0) -> Turn:
        """The request that sends all of it."""
        return Turn(messages=(*self._messages,), answer_tokens=answer_tokens, pause_s=pause_s)


def _size(message: Message) -> int:
    calls = [len(call.function.name + call.function.arguments) for call in message.tool_calls]
    return len(message.content) + sum(calls) + FRAME_BYTES * (1 + len(calls))
