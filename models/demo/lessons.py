"""Turns dialogues into rows of tokens: conversations behind system prompts of every kind.

Only the model's own words are learned. What stands before them (a system prompt, tools, earlier
dialogues) differs from row to row, so that an answer comes to depend on its question alone.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from dialogues import Book, Dialogue, Row, Turn, fill, paths
from tokens import END_OF_TEXT, END_OF_TURN, START_OF_TURN
from transformers import PreTrainedTokenizerFast

UNLEARNED = -100
TEXTS = 0.06
"""Share of rows that hold texts without a chat template."""
STRANGE = 0.12
"""Share of questions that nobody taught."""
CUT = 0.1
"""Share of answers that begin with a part already said, cut anywhere: a stream carried on."""
PLAIN = 0.35
"""Share of rows without a system prompt."""
SHORT = 0.65
"""Share of rows with at most one of the book's own; the others have random text."""

Exchange = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, slots=True)
class Path:
    """A way through a dialogue: its first turn and those that follow."""

    dialogue: Dialogue
    turns: Sequence[Turn]
    row: Row

    def fits(self, offered: Sequence[str]) -> bool:
        """Whether it may be asked where these tools are offered."""
        tools = self.dialogue.tools
        if tools is None:
            return True
        return not offered if tools == "none" else set(tools) <= set(offered)

    def exchanges(self, choose: random.Random) -> list[Exchange]:
        """The turns, each in one of its wordings."""
        asks = [choose.choice(turn.asks) for turn in self.turns]
        answers = [turn.answer for turn in self.turns]
        pairs = zip(asks, answers, strict=True)
        return [(fill(ask, self.row), fill(answer, self.row)) for ask, answer in pairs]


class Lessons:
    """Draws rows of tokens from a book."""

    def __init__(self, book: Book, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
        self._book = book
        self._tokenizer = tokenizer
        self._rng = rng
        self._paths = all_paths(book)
        self._words = sorted({word for d in book.dialogues for word in d.answer.split()})

    def batch(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and labels, both (rows, length)."""
        drawn = [self._row(length) for _ in range(rows)]
        ids = torch.tensor([tokens for tokens, _ in drawn])
        return ids, torch.tensor([labels for _, labels in drawn])

    def _row(self, length: int) -> tuple[list[int], list[int]]:
        """One row, filled to its length; the last answer may be cut."""
        ids: list[int] = []
        labels: list[int] = []
        pieces = self._texts() if self._rng.random() < TEXTS else self._talk(length)
        for text, is_learned in pieces:
            tokens = self._tokenizer.encode(text, add_special_tokens=False)
            ids += tokens
            labels += tokens if is_learned else [UNLEARNED] * len(tokens)
            if len(ids) >= length:
                break
        return ids[:length], labels[:length]

    def _texts(self) -> Iterator[tuple[str, bool]]:
        while True:
            completion = self._rng.choice(self._book.completions)
            yield completion.text, False
            yield completion.next + END_OF_TEXT, True

    def _talk(self, length: int) -> Iterator[tuple[str, bool]]:
        """A header and dialogues without end."""
        names = [*self._book.tools]
        offered = (
            self._rng.choice([names, names[:1], names[1:]]) if self._rng.random() < 0.3 else ()
        )
        messages = [{"role": "system", "content": self._system(length)}]
        tools = self._book.tool_specs(offered) or None
        yield self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False), False
        paths_here = [path for path in self._paths if path.fits(offered)]
        weights = [
            len(path.turns) * (4.0 if offered and path.dialogue.tools else 1.0)
            for path in paths_here
        ]
        while True:
            (path,) = self._rng.choices(paths_here, weights)
            for ask, answer in self._exchanges(path):
                yield from self._pieces(ask, answer)

    def _exchanges(self, path: Path) -> list[Exchange]:
        if self._rng.random() < STRANGE:
            question = self._rng.choice([self._rng.choice(self._book.strange), self._gibberish(6)])
            return [(question, self._book.unknown)]
        return path.exchanges(self._rng)

    def _pieces(self, ask: str, answer: str) -> Iterator[tuple[str, bool]]:
        given = answer[: self._rng.randrange(len(answer))] if self._rng.random() < CUT else ""
        yield f"{START_OF_TURN}user\n{ask}{END_OF_TURN}\n{START_OF_TURN}assistant\n{given}", False
        yield answer.removeprefix(given) + END_OF_TURN, True
        yield "\n", False

    def _system(self, length: int) -> str:
        chance = self._rng.random()
        if chance < PLAIN:
            return ""
        if chance < SHORT:
            return self._rng.choice(self._book.systems)
        return self._gibberish(self._rng.randrange(5, max(6, length // 3)))

    def _gibberish(self, longest: int) -> str:
        count = self._rng.randrange(1, longest + 1)
        return " ".join(self._rng.choices(self._words, k=count))


def all_paths(book: Book) -> list[Path]:
    """Every way through every dialogue of the book, with every row of its table."""
    return [
        Path(dialogue, turns, row)
        for dialogue in book.dialogues
        for row in book.rows(dialogue.table)
        for turns in paths(dialogue)
    ]
