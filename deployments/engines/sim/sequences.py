"""Prompts and completions of a simulated engine, as tokens and as hashed blocks of its KV cache.

Method: a block's hash covers its content and everything before it, `hash = xxh3_64(content,
seed=previous hash)`, as in vLLM. A completion's blocks are hashed as the next turn of the
conversation will render them, so that it finds them. A token of a prompt is four bytes, a token of
a completion one word, also where the prompt ends with the start of its completion; in any other
prompt a completion has more tokens than when it was generated. Cost: O(bytes).
"""

import itertools
from array import array
from dataclasses import dataclass, replace
from typing import Literal, Self

from xxhash import xxh3_64_intdigest, xxh32_intdigest

from deployments.engines.sim.words import answer_words, count_answer_words, words
from gateway.kvcache.prefix import extend
from gateway.simulation.batching import SimulatedSequence

BYTES_PER_TOKEN = 4
"""Mean of English text in common tokenizers, and the size of a stored token id."""

AnswerFrame = tuple[bytes, bytes]
"""Text before and after an answer in the next turn of its conversation."""

TEXT_FRAME: AnswerFrame = (b"", b"")
CHAT_FRAME: AnswerFrame = (b"assistant: ", b"\n")

_IDS = 0xFFFF_FFFF_FFFF_FFFF
"""Salt that separates token ids from a text of the same bytes."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt as the model reads it."""

    content: bytes
    """Text, or token ids."""
    seed: int
    """64-bit hash of the content, from which the answer is generated."""
    tokens: int
    """Number of tokens."""
    salt: int = 0
    """Salt of the block hashes: only prompts of the same salt share blocks."""
    frame: AnswerFrame | None = None
    """None if an answer cannot be part of a next turn."""
    answered: str = ""
    """Start of the answer, if the content ends with it."""
    answered_tokens: int = 0
    """Number of whole tokens in `answered`."""
    answer_offset: int | None = None
    """Position of `answered` in the content, with the frame before it."""

    @classmethod
    def of_text(cls, text: bytes, salt: int, frame: AnswerFrame) -> Self:
        """Prompt of a text in UTF-8."""
        return cls(text, xxh3_64_intdigest(text), count_tokens(text), salt, frame)

    @classmethod
    def of_ids(cls, ids: list[int], salt: int) -> Self:
        """Prompt of token ids, whose text is unknown."""
        content = array("I", ids).tobytes()
        return cls(content, xxh3_64_intdigest(content, _IDS), max(1, len(ids)), salt ^ _IDS)

    def with_answer_text(self, answered: str) -> Self | None:
        """The prompt followed by the start of its answer; None if its answer starts otherwise."""
        count = count_answer_words(self.seed, answered)
        if count is None or self.frame is None:
            return None
        before, after = self.frame
        return replace(
            self,
            content=self.content + before + answered.encode(),
            tokens=self.tokens + count,
            frame=(b"", after),
            answered=answered,
            answered_tokens=count,
            answer_offset=len(self.content),
        )

    def with_answer_ids(self, ids: list[int]) -> Self | None:
        """The prompt followed by its answer's first ids; None if its answer starts otherwise."""
        answered = list(itertools.islice(words(self.seed), len(ids)))
        if [_token_id(word.strip().encode()) for word in answered] != ids:
            return None
        return replace(
            self,
            content=self.content + array("I", ids).tobytes(),
            tokens=self.tokens + len(ids),
            answered="".join(answered),
            answered_tokens=len(ids),
        )

    def next_words(self, choice: int, tokens: int) -> list[str]:
        """The next `tokens` tokens of its answer number `choice`."""
        every = words(self.seed + choice)
        whole_size = sum(map(len, itertools.islice(every, self.answered_tokens)))
        rest = list(itertools.islice(every, tokens))
        if rest:
            rest[0] = rest[0][len(self.answered) - whole_size :]
        return rest

    @property
    def ids(self) -> list[int]:
        """Token ids of a prompt that is text."""
        before = token_ids(self.content[: self.answer_offset])
        answered = self.answered.encode().split(b" ")[: self.answered_tokens]
        return before + [_token_id(word) for word in answered]

    def blocks(self, block_size: int) -> "array[int]":
        """Hashes of its whole blocks."""
        return extend(self.salt, self.content, block_size * BYTES_PER_TOKEN)

    def answer_blocks(self, blocks: "array[int]", answer: str, block_size: int) -> "array[int]":
        """Hashes of the blocks that the answer completes, as the next turn will have them."""
        if self.frame is None:
            return array("Q")
        before, after = self.frame
        block_bytes = block_size * BYTES_PER_TOKEN
        text = self.content[len(blocks) * block_bytes :] + before + answer.encode() + after
        return extend(blocks[-1] if blocks else self.salt, text, block_bytes)


def count_tokens(text: bytes) -> int:
    """Number of tokens of a text, at least one: a chat template always adds something."""
    return len(answer_words(text)) or max(1, -(-len(text) // BYTES_PER_TOKEN))


def token_ids(text: bytes) -> list[int]:
    """Token ids of a text."""
    starts = range(0, max(1, len(text)), BYTES_PER_TOKEN)
    pieces = answer_words(text) or [text[start : start + BYTES_PER_TOKEN] for start in starts]
    return [_token_id(piece) for piece in pieces]


def _token_id(piece: bytes) -> int:
    return xxh32_intdigest(piece) >> 1


@dataclass(frozen=True, slots=True)
class OutputSequence:
    """One completion to generate, token by token."""

    index: int
    prompt: RenderedPrompt
    words: list[str]
    finish_reason: Literal["stop", "length"]

    @property
    def text(self) -> str:
        """Text of the whole completion."""
        return "".join(self.words)

    @property
    def completions(self) -> list[bytes]:
        """The text, for prompts that continue with it; empty if none can."""
        return [] if self.prompt.frame is None else [self.text.encode()]

    def run(
        self, blocks: "array[int]", block_size: int, priority: float, *, is_further: bool
    ) -> SimulatedSequence:
        """The run that generates it in a replica; `blocks` are its prompt's."""
        return SimulatedSequence(
            block_hashes=blocks,
            prompt_tokens=self.prompt.tokens,
            output_tokens=max(1, len(self.words)),  # an empty completion takes a token, too
            output_block_hashes=self.prompt.answer_blocks(blocks, self.text, block_size),
            priority=priority,
            is_further=is_further,
        )
