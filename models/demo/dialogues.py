"""Reads `dialogues.yaml` and lays every conversation in it out, turn by turn."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue

END_OF_THOUGHT = "</think>"
NOISE = "noise"
"""The slot for text that nobody knows before: what agents write around a task or a result."""

Row = Mapping[str, str]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolCall(_Entry):
    """A call in Hermes format."""

    name: str
    arguments: dict[str, JsonValue]

    def text(self) -> str:
        """The call as the model writes it."""
        body = json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)
        return f"<tool_call>\n{body}\n</tool_call>"


class Turn(_Entry):
    """What the user or tools say, what the model answers, and what may come after it."""

    ask: str = ""
    results: tuple[str, ...] = ()
    say: str = ""
    think: str = "I know this one by heart."
    calls: tuple[ToolCall, ...] = ()
    then: tuple["Turn", ...] = ()

    @property
    def asks(self) -> list[str]:
        """The ways to ask, or the tools' results wrapped as the chat template wraps them."""
        if self.results:
            wrapped = [f"<tool_response>\n{result}\n</tool_response>" for result in self.results]
            return ["\n".join(wrapped)]
        return [way.strip() for way in self.ask.split(" | ")]

    @property
    def answer(self) -> str:
        """The answer as the model writes it, slots still open."""
        return "\n".join([*filter(None, [self.say]), *(call.text() for call in self.calls)])

    @property
    def thought(self) -> str:
        """What stands between a prompt that asks for a thought and the answer."""
        return f"{self.think}{END_OF_THOUGHT}"


class Dialogue(Turn):
    """The first turn of a conversation, with what the whole of it needs."""

    table: str | None = None
    tools: tuple[str, ...] | Literal["none"] | None = None


class Completion(_Entry):
    """A text without a chat template, and how it goes on."""

    text: str
    next: str


class Tool(_Entry):
    """A function that a request may offer."""

    name: str | None = None
    """The function's name, if it is not the entry's: two requests may offer the same name."""
    description: str
    parameters: dict[str, JsonValue]


class Book(_Entry):
    """The whole of `dialogues.yaml`."""

    unknown: str
    unknown_thought: str
    strange: tuple[str, ...]
    systems: tuple[str, ...]
    tools: dict[str, Tool]
    tables: dict[str, tuple[dict[str, str], ...]]
    dialogues: tuple[Dialogue, ...]
    completions: tuple[Completion, ...]

    @property
    def unknown_turn(self) -> Turn:
        """What the model answers to what nobody has taught it."""
        return Turn(say=self.unknown, think=self.unknown_thought)

    def rows(self, table: str | None) -> Sequence[Row]:
        """What may fill the slots of a dialogue: `[{}]` for one without a table."""
        return [{}] if table is None else self.tables[table]

    def tool_specs(self, names: Sequence[str]) -> list[dict[str, JsonValue]]:
        """The `tools` field of a request that offers these tools."""
        return [
            {
                "type": "function",
                "function": {"name": name, **self.tools[name].model_dump(exclude_none=True)},
            }
            for name in names
        ]


def load(path: Path) -> Book:
    """The book at `path`; pydantic names the entry that is wrong."""
    return Book.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def paths(turn: Turn) -> Iterator[tuple[Turn, ...]]:
    """Every way from this turn down: first the turn alone, then with each turn that may follow."""
    yield (turn,)
    for follow in turn.then:
        for rest in paths(follow):
            yield (turn, *rest)


def fill(text: str, row: Row) -> str:
    """The text with its slots filled."""
    for slot, value in row.items():
        text = text.replace("{" + slot + "}", value)
    return text
