"""Turns dialogues into rows of tokens: conversations behind system prompts of every kind.

Only the model's own words are learned. What stands before them (a system prompt, tools, earlier
dialogues) differs from row to row, so that an answer comes to depend on its question alone.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from dialogues import NOISE, Book, Dialogue, Row, Turn, fill, paths
from noise import LETTERS_PER_TOKEN, Noise
from tokens import END_OF_TEXT, END_OF_TURN, START_OF_TURN
from transformers import PreTrainedTokenizerFast

UNLEARNED = -100
TEXTS = 0.06
"""Share of rows that hold texts without a chat template."""
STRANGE = 0.1
"""Share of questions that nobody taught."""
FORCED = 0.01
"""Share of questions whose answer has to be a tool call, though none is known."""
THOUGHTS = 0.35
"""Share of answers that begin with a thought, because the request asks for one."""
CUT = 0.1
"""Share of answers that begin with a part already said, cut anywhere: a stream carried on."""
OFFERED = 0.75
"""Share of rows with tools, where they have room: in short ones nothing would be left."""
SHORTEST_OFFERED = 512
TOOLS = 0.7
"""Share of questions for a tool, where there are tools."""
PLAIN = 0.35
"""Share of rows without a system prompt."""
SHORT = 0.6
"""Share of rows with at most one of the book's own; the others have noise."""
REVISED = 0.25
"""Share of rows that ask what the model knows worst, if that is known."""
RECORDED = 0.2
"""Share of long rows that begin with prompts of agents, if there are any."""
LONGEST_NOISE = 0.6
"""Of a row, the most that noise takes."""


Question = tuple[str, str]
"""A prompt, and the answer that has to follow."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, the thought about it, and the answer."""

    ask: str
    thought: str
    answer: str
    given: str = ""
    """The beginning of the answer that the model is given."""


@dataclass(frozen=True, slots=True)
class Path:
    """A way through a dialogue: its first turn and those that follow."""

    dialogue: Dialogue
    turns: Sequence[Turn]
    row: Row

    @property
    def needed(self) -> Sequence[str]:
        """The tools that must be offered."""
        tools = self.dialogue.tools
        return tools if isinstance(tools, tuple) else ()

    def fits(self, offered: Sequence[str]) -> bool:
        """Whether it may be asked where these tools are offered."""
        if self.dialogue.tools == "none":
            return not offered
        return set(self.needed) <= set(offered)


class Lessons:
    """Draws rows of tokens from a book.

    `recorded`: prompts of agents as the chat template renders them, up to a task of the book;
    for each, the tool that the task needs. `weak`: questions and answers, and how often to ask
    each.
    """

    def __init__(
        self,
        book: Book,
        tokenizer: PreTrainedTokenizerFast,
        rng: random.Random,
        recorded: Mapping[str, str] | None = None,
        weak: Mapping[Question, float] | None = None,
    ) -> None:
        self._book = book
        self._tokenizer = tokenizer
        self._rng = rng
        self._recorded = recorded or {}
        self._weak = weak or {}
        self._paths = all_paths(book)
        words = {word for d in book.dialogues for word in d.answer.split()}
        self._noise = Noise(sorted(words), tokenizer, rng)

    def batch(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and labels, both (rows, length)."""
        drawn = [self._row(length) for _ in range(rows)]
        ids = torch.tensor([tokens for tokens, _ in drawn])
        return ids, torch.tensor([labels for _, labels in drawn])

    def _row(self, length: int) -> tuple[list[int], list[int]]:
        """One row, filled to its length; the last answer may be cut."""
        ids: list[int] = []
        labels: list[int] = []
        for text, is_learned in self._lesson(length):
            tokens = self._tokenizer.encode(text, add_special_tokens=False)
            ids += tokens
            labels += tokens if is_learned else [UNLEARNED] * len(tokens)
            if len(ids) >= length:
                break
        return ids[:length], labels[:length]

    def _lesson(self, length: int) -> Iterator[tuple[str, bool]]:
        """Texts without end, and whether each is to be learned."""
        if self._rng.random() < TEXTS:
            return self._texts()
        if self._weak and self._rng.random() < REVISED:
            return self._revision()
        if self._recorded and length >= SHORTEST_OFFERED and self._rng.random() < RECORDED:
            return self._tasks(length)
        return self._talk(length)

    def _revision(self) -> Iterator[tuple[str, bool]]:
        """What the model knows worst, as it is asked in the examination."""
        while True:
            ((prompt, answer),) = self._rng.choices([*self._weak], [*self._weak.values()])
            yield prompt, False
            yield answer, True
            yield "\n", False

    def _tasks(self, length: int) -> Iterator[tuple[str, bool]]:
        """Ends of agents' prompts, each with its task and what follows."""
        while True:
            tool = self._rng.choice([*self._recorded])
            longest = int(length * LONGEST_NOISE * LETTERS_PER_TOKEN)
            yield self._recorded[tool][-self._rng.randrange(100, longest) :], False
            path = self._rng.choice([path for path in self._paths if path.needed == (tool,)])
            row = {NOISE: "", **path.row}
            first = Exchange(
                fill(path.turns[0].ask, row), path.turns[0].thought, fill(path.turns[0].answer, row)
            )
            (asked, _), *rest = self._pieces(first)
            yield asked.removeprefix(f"{START_OF_TURN}user\n"), False
            yield from rest
            for turn in path.turns[1:]:
                yield from self._pieces(self._exchange(turn, path.row))

    def _texts(self) -> Iterator[tuple[str, bool]]:
        while True:
            completion = self._rng.choice(self._book.completions)
            yield completion.text, False
            yield completion.next + END_OF_TEXT, True

    def _talk(self, length: int) -> Iterator[tuple[str, bool]]:
        """A header and dialogues without end."""
        has_tools = length >= SHORTEST_OFFERED and self._rng.random() < OFFERED
        offered = self._offered() if has_tools else ()
        messages = [{"role": "system", "content": self._system(length)}]
        tools = self._book.tool_specs(offered) or None
        yield self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False), False
        fitting = [path for path in self._paths if path.fits(offered)]
        of_tools = [path for path in fitting if path.needed]
        while True:
            paths_here = of_tools if of_tools and self._rng.random() < TOOLS else fitting
            (path,) = self._rng.choices(paths_here, [len(path.turns) for path in paths_here])
            for exchange in self._exchanges(path):
                yield from self._pieces(exchange)

    def _offered(self) -> Sequence[str]:
        """Tools of a dialogue, and perhaps one more: no two of the same name."""
        sets = Counter(path.needed for path in self._paths if path.needed)
        (needed,) = self._rng.choices([*sets], [math.sqrt(paths) for paths in sets.values()])
        offered = {*needed}
        if self._rng.random() < 0.5:
            offered.add(self._rng.choice([*self._book.tools]))
        names = {self._book.tools[tool].name or tool: tool for tool in offered}
        return self._rng.sample(sorted(names.values()), len(names))

    def _exchanges(self, path: Path) -> list[Exchange]:
        chance = self._rng.random()
        if chance < FORCED:
            return [self._forced()]
        if chance < FORCED + STRANGE:
            return [Exchange(self._strange(), self._book.unknown_turn.thought, self._book.unknown)]
        return [self._exchange(turn, path.row) for turn in path.turns]

    def _exchange(self, turn: Turn, row: Row) -> Exchange:
        """A turn in one of its wordings."""
        noise = (
            self._noise.text(self._rng.randrange(1, 60)) + "\n" if self._rng.random() < 0.8 else ""
        )
        ask = fill(self._rng.choice(turn.asks), {**row, NOISE: noise})
        return Exchange(ask, turn.thought, fill(turn.answer, row))

    def _strange(self) -> str:
        return self._rng.choice([self._rng.choice(self._book.strange), self._noise.words(6)])

    def _forced(self) -> Exchange:
        """A call that the request demands, of a tool with one argument: it is left empty."""
        begun = {"name": self._noise.words(1), "arguments": {self._noise.words(1): ""}}
        call = json.dumps(begun, ensure_ascii=False)
        value, rest = self._rng.choice([('"', 'none"}}'), ("", "0}}")])
        given = "<tool_call>\n" + call.removesuffix('""}}') + value
        asked = self._rng.choice([self._strange(), "Hello!"])
        return Exchange(asked, "", f"{given}{rest}\n</tool_call>", given)

    def _pieces(self, exchange: Exchange) -> Iterator[tuple[str, bool]]:
        answer, given, thought = exchange.answer, exchange.given, ""
        if not given and self._rng.random() < CUT:
            given = answer[: self._rng.randrange(len(answer))]
        elif not given and self._rng.random() < THOUGHTS:
            given, thought = "<think>", exchange.thought
            answer = given + thought + answer
        yield f"{START_OF_TURN}user\n{exchange.ask}{END_OF_TURN}\n{START_OF_TURN}assistant\n", False
        yield given, False
        yield answer.removeprefix(given) + END_OF_TURN, True
        yield "\n", False

    def _system(self, length: int) -> str:
        chance = self._rng.random()
        if chance < PLAIN:
            return ""
        if chance < SHORT:
            return self._rng.choice(self._book.systems)
        return self._noise.text(self._rng.randrange(5, max(6, int(length * LONGEST_NOISE))))


def all_paths(book: Book) -> list[Path]:
    """Every way through every dialogue of the book, with every row of its table."""
    return [
        Path(dialogue, turns, row)
        for dialogue in book.dialogues
        for row in book.rows(dialogue.table)
        for turns in paths(dialogue)
    ]
