"""Lessons for embeddings: texts that mean the same lie near each other, however short the vector.

The loss is Matryoshka's: the contrastive loss (InfoNCE) of the first numbers of each embedding, for
several sizes. An embedding is the state after a text's last token, as vLLM pools it.
"""

import random
from collections.abc import Sequence

import torch
from dialogues import NOISE, Book, Dialogue, fill
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

SIZES = (16, 32, 64, 128, 192)
TEMPERATURE = 0.05
MOST_TOKENS = 64
ANSWERS = 0.3
"""Share of pairs of a question and its answer; others are two ways to ask."""


class Pairs:
    """Draws pairs of texts that mean the same, each of another dialogue."""

    def __init__(self, book: Book, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
        self._book = book
        self._tokenizer = tokenizer
        self._rng = rng
        self._dialogues = [
            d for d in book.dialogues if d.tools != "none" and (d.say or len(d.asks) > 1)
        ]

    def batch(self, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens, padded at their end to (2 * pairs, tokens), and the last place of each text.

        The first half has the first texts of all pairs, the second half the others.
        """
        drawn = [self._pair(d) for d in self._rng.sample(self._dialogues, pairs)]
        texts = [one for one, _ in drawn] + [other for _, other in drawn]
        return padded(self._tokenizer, texts)

    def _pair(self, dialogue: Dialogue) -> tuple[str, str]:
        row = {NOISE: "", **self._rng.choice([*self._book.rows(dialogue.table)])}
        asks = self._rng.sample(dialogue.asks, len(dialogue.asks))
        has_one = len(asks) == 1 or (dialogue.say and self._rng.random() < ANSWERS)
        return fill(asks[0], row), fill(dialogue.say if has_one else asks[1], row)


def padded(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of texts, (texts, tokens), and the last place of each."""
    rows = [torch.tensor(tokenizer.encode(text)[:MOST_TOKENS]) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return ids, torch.tensor([len(row) - 1 for row in rows])


def embeddings(model: Qwen3ForCausalLM, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The states after the last tokens, (texts, size), not of unit length."""
    states: torch.Tensor = model.model(ids, use_cache=False).last_hidden_state
    return states[torch.arange(len(ids)), last]


def loss_of_pairs(model: Qwen3ForCausalLM, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Mean contrastive loss over all sizes; the first half of the texts pairs with the second."""
    states = embeddings(model, ids, last)
    wanted = torch.arange(len(ids) // 2)
    losses = []
    for size in SIZES:
        ones, others = torch.nn.functional.normalize(states[:, :size], dim=-1).chunk(2)
        scores = ones @ others.T / TEMPERATURE
        losses += [
            torch.nn.functional.cross_entropy(scores, wanted),
            torch.nn.functional.cross_entropy(scores.T, wanted),
        ]
    return torch.stack(losses).mean()
