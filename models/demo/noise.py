"""Text that the model learns to overlook: what systems and agents write around a question.

It is drawn from three sources: the words of the dialogues in any order, tokens of the vocabulary in
any order, and pages of this repository, which stand for real prompts.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
LETTERS_PER_TOKEN = 2
"""Of real text; this vocabulary is small."""


class Noise:
    """Draws texts of a wanted length."""

    def __init__(
        self, words: Sequence[str], tokenizer: PreTrainedTokenizerFast, rng: random.Random
    ) -> None:
        self._words = words
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        self._pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
        self._rng = rng

    def words(self, longest: int) -> str:
        """At least one word, and at most so many."""
        count = self._rng.randrange(1, longest + 1)
        return " ".join(self._rng.choices(self._words, k=count))

    def text(self, tokens: int) -> str:
        """A text of about so many tokens, from any source."""
        kind = self._rng.random()
        if kind < 0.3:
            return " ".join(self._rng.choices(self._words, k=max(1, tokens // 2)))
        if kind < 0.5:
            drawn = self._rng.choices(range(len(self._tokenizer)), k=tokens)
            return str(self._tokenizer.decode([t for t in drawn if t not in self._special]))
        letters = tokens * LETTERS_PER_TOKEN
        start = self._rng.randrange(max(1, len(self._pages) - letters))
        return self._pages[start : start + letters]
