"""What a simulated engine reads and says, as tokens and as hashed blocks of its KV cache.

Method: a block stands for its content and all before it, `hash = xxh3_64(content, seed=the hash
before)`, as in vLLM. An answer's blocks are hashed as the next turn of the conversation will render
them, so that it finds them. A token of a prompt is four bytes, one of an answer a word: in the next
turn an answer is longer than it was when it was made. Cost: O(bytes).
"""

from array import array
from dataclasses import dataclass
from typing import Literal, Self

from xxhash import xxh3_64_intdigest

from gateway.routing.prefix import extend
from gateway.simulation.batching import Run

BYTES_PER_TOKEN = 4
"""What English text comes to in common tokenizers; and what a token id is stored in."""

Frame = tuple[bytes, bytes]
"""What a conversation's next turn has around an answer."""

TEXT_FRAME: Frame = (b"", b"")
CHAT_FRAME: Frame = (b"assistant: ", b"\n")

_IDS = 0xFFFF_FFFF_FFFF_FFFF
"""Sets token ids apart from a text of the same bytes."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the model reads it."""

    content: bytes
    """Text, or token ids."""
    seed: int
    """64 bits that stand for the content: what is answered follows from them."""
    salt: int = 0
    """Prompts share blocks of the KV cache only with prompts of the same salt."""
    frame: Frame | None = None
    """None where an answer cannot be put into a next turn."""

    @classmethod
    def of_text(cls, text: bytes, salt: int, frame: Frame) -> Self:
        """A text in UTF-8."""
        return cls(text, xxh3_64_intdigest(text), salt, frame)

    @classmethod
    def of_ids(cls, ids: list[int], salt: int) -> Self:
        """Token ids; what the ids of an answer would be, nobody knows."""
        content = array("I", ids).tobytes()
        return cls(content, xxh3_64_intdigest(content, _IDS), salt ^ _IDS)

    @property
    def tokens(self) -> int:
        """How long it is; a template always adds something, so that no prompt is empty."""
        return max(1, -(-len(self.content) // BYTES_PER_TOKEN))

    def blocks(self, block_size: int) -> "array[int]":
        """The hashes of its whole blocks, each standing for all before it too."""
        return extend(self.salt, self.content, block_size * BYTES_PER_TOKEN)

    def answer_blocks(self, blocks: "array[int]", answer: str, block_size: int) -> "array[int]":
        """The hashes of the blocks that the answer completes, as the next turn will have them."""
        if self.frame is None:
            return array("Q")
        before, after = self.frame
        block_bytes = block_size * BYTES_PER_TOKEN
        text = self.content[len(blocks) * block_bytes :] + before + answer.encode() + after
        return extend(blocks[-1] if blocks else self.salt, text, block_bytes)


@dataclass(frozen=True, slots=True)
class Sequence:
    """One answer to generate, and what it will say, token by token."""

    index: int
    prompt: Prompt
    words: list[str]
    finish_reason: Literal["stop", "length"]

    @property
    def text(self) -> str:
        """All that it says."""
        return "".join(self.words)

    @property
    def reply(self) -> list[bytes]:
        """The text as what a prompt may go on with; empty if no prompt can."""
        return [] if self.prompt.frame is None else [self.text.encode()]

    def run(self, blocks: "array[int]", block_size: int, priority: float) -> Run:
        """The work it is for a replica; `blocks` are its prompt's."""
        return Run(
            hashes=blocks,
            prompt_tokens=self.prompt.tokens,
            output_tokens=len(self.words),
            answer_hashes=self.prompt.answer_blocks(blocks, self.text, block_size),
            priority=priority,
        )
