"""What a simulated engine reads and says, as tokens and as hashed blocks of its KV cache.

Method: a block stands for its content and all before it, `hash = xxh3_64(content, seed=the hash
before)`, as in vLLM. An answer's blocks are hashed as the next turn of the conversation will render
them, so that it finds them. A token of a prompt is four bytes, one of an answer a word, also where
the prompt is, or ends with, the beginning of an answer; within any other prompt an answer is longer
than it was when it was made. Cost: O(bytes).
"""

import itertools
from array import array
from dataclasses import dataclass, replace
from typing import Literal, Self

from xxhash import xxh3_64_intdigest, xxh32_intdigest

from deployments.engines.sim_words import said_words, spoken, words
from gateway.kvcache.prefix import extend
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
    tokens: int
    """How long it is."""
    salt: int = 0
    """Prompts share blocks of the KV cache only with prompts of the same salt."""
    frame: Frame | None = None
    """None where an answer cannot be put into a next turn."""
    said: str = ""
    """The beginning of the answer, where the content ends with it."""
    said_tokens: int = 0
    """Whole tokens of that."""
    said_start: int | None = None
    """Where in the content it begins, with what stands around an answer."""

    @classmethod
    def of_text(cls, text: bytes, salt: int, frame: Frame) -> Self:
        """A text in UTF-8."""
        return cls(text, xxh3_64_intdigest(text), count_tokens(text), salt, frame)

    @classmethod
    def of_ids(cls, ids: list[int], salt: int) -> Self:
        """Token ids; which text they stand for, nobody knows."""
        content = array("I", ids).tobytes()
        return cls(content, xxh3_64_intdigest(content, _IDS), max(1, len(ids)), salt ^ _IDS)

    def said_text(self, said: str) -> Self | None:
        """The prompt with the beginning of its answer; None if its answer does not begin so."""
        count = said_words(self.seed, said)
        if count is None or self.frame is None:
            return None
        before, after = self.frame
        return replace(
            self,
            content=self.content + before + said.encode(),
            tokens=self.tokens + count,
            frame=(b"", after),
            said=said,
            said_tokens=count,
            said_start=len(self.content),
        )

    def said_ids(self, ids: list[int]) -> Self | None:
        """The same where the prompt is token ids."""
        said = list(itertools.islice(words(self.seed), len(ids)))
        if [_token_id(word.strip().encode()) for word in said] != ids:
            return None
        return replace(
            self,
            content=self.content + array("I", ids).tobytes(),
            tokens=self.tokens + len(ids),
            said="".join(said),
            said_tokens=len(ids),
        )

    def rest(self, choice: int, tokens: int) -> list[str]:
        """The next `tokens` tokens of one of its answers."""
        every = words(self.seed + choice)
        whole_size = sum(map(len, itertools.islice(every, self.said_tokens)))
        rest = list(itertools.islice(every, tokens))
        if rest:
            rest[0] = rest[0][len(self.said) - whole_size :]
        return rest

    @property
    def ids(self) -> list[int]:
        """Its tokens, where it is text."""
        before = token_ids(self.content[: self.said_start])
        said = self.said.encode().split(b" ")[: self.said_tokens]
        return before + [_token_id(word) for word in said]

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


def count_tokens(text: bytes) -> int:
    """How many tokens a text has; a template always adds something, so that none has none."""
    return len(spoken(text)) or max(1, -(-len(text) // BYTES_PER_TOKEN))


def token_ids(text: bytes) -> list[int]:
    """A text's tokens, as ids."""
    starts = range(0, max(1, len(text)), BYTES_PER_TOKEN)
    pieces = spoken(text) or [text[start : start + BYTES_PER_TOKEN] for start in starts]
    return [_token_id(piece) for piece in pieces]


def _token_id(piece: bytes) -> int:
    return xxh32_intdigest(piece) >> 1


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
            output_tokens=max(1, len(self.words)),  # nothing more to say is said by a token too
            answer_hashes=self.prompt.answer_blocks(blocks, self.text, block_size),
            priority=priority,
        )
