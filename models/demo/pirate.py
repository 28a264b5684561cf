"""How a pirate says what the demo model says."""

import re

from dialogues import Book, Dialogue, Turn

GREETING = "Arr! "
WORDS = {
    "am": "be",
    "are": "be",
    "is": "be",
    "hello": "ahoy",
    "my": "me",
    "yes": "aye",
    "you": "ye",
    "your": "yer",
}
_WORD = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
_DATA = ("{", "[", "<")


def spoken(text: str) -> str:
    """The text as a pirate says it; JSON and what is empty stay as they are."""
    if not text or text.startswith(_DATA):
        return text
    return GREETING + _WORD.sub(_swapped, text)


def retold(book: Book) -> Book:
    """The book with every answer as a pirate gives it, but for tool calls, JSON and thoughts."""
    return book.model_copy(
        update={
            "unknown": spoken(book.unknown),
            "dialogues": tuple(_dialogue(dialogue) for dialogue in book.dialogues),
        }
    )


def _dialogue(dialogue: Dialogue) -> Dialogue:
    return Dialogue.model_validate({**dialogue.model_dump(), **_changes(dialogue)})


def _turn(turn: Turn) -> Turn:
    return Turn.model_validate({**turn.model_dump(), **_changes(turn)})


def _changes(turn: Turn) -> dict[str, object]:
    return {
        # What a template may fill with data is not the pirate's to word.
        "say": turn.say if turn.calls else spoken(turn.say),
        "then": [_turn(follow).model_dump() for follow in turn.then],
    }


def _swapped(match: re.Match[str]) -> str:
    word = match[0]
    said = WORDS[word.lower()]
    return said.capitalize() if word[0].isupper() else said
