"""Words of a simulated engine: grammatical nonsense, the same for the same prompt."""

import itertools
from collections.abc import Iterator

_ADJECTIVES = """
    amber bold brisk calm clever distant eager early gentle golden grand happy hidden honest humble
    kind late lively lucky mild modest noble patient proud quick quiet silver small steady tall warm
    young
"""
_NOUNS = """
    acrobats bakers birds boats bridges captains clouds dancers farmers foxes gardens gates horses
    islands lanterns letters maps mountains painters poets rivers roads sailors seeds ships stars
    stories teachers towers trains travellers wolves
"""
_VERBS = """
    admire answer build carry cross describe discover draw expect find follow gather greet guard
    guide help imagine invite join light measure meet name notice paint pass praise remember send
    teach visit watch
"""

_ADJECTIVE = [f" {word}" for word in _ADJECTIVES.split()]
_NOUN = [f" {word}" for word in _NOUNS.split()]
_VERB = [f" {word}" for word in _VERBS.split()]
_SENTENCE = [
    [word.title() for word in _ADJECTIVE],
    _NOUN,
    _VERB,
    _ADJECTIVE,
    [f"{word}." for word in _NOUN],
]
"""32 words for each of a sentence's five places, none a prefix of another."""
_PLACES = [frozenset(word.strip().encode() for word in place) for place in _SENTENCE]


def words(seed: int) -> Iterator[str]:
    """Endless tokens, each a word with the space before it; `seed` has 64 bits."""
    state, separator = seed, ""
    for place in itertools.cycle(_SENTENCE):
        # Knuth's MMIX generator: its upper bits are random enough to choose a word by, and it is
        # cheaper than `random.Random`, which takes longer to seed than a whole answer to make.
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFF_FFFF_FFFF_FFFF
        word = place[state >> 59]
        yield word if separator else word.lstrip()
        separator = " "


def answer_words(text: bytes) -> list[bytes]:
    """Whole words of a text that an answer may start with; empty if no answer can."""
    end = text.find(b" ")
    if (text if end < 0 else text[:end]) not in _PLACES[0]:
        return []  # nearly every text
    *answered, last = text.split(b" ")
    if not all(
        word in place for word, place in zip(answered, itertools.cycle(_PLACES), strict=False)
    ):
        return []
    place = _PLACES[len(answered) % len(_PLACES)]
    if last in place:
        return [*answered, last]
    return answered if any(word.startswith(last) for word in place) else []


def count_answer_words(seed: int, answered: str) -> int | None:
    """Number of whole words in `answered`; None if the answer of `seed` does not start with it."""
    every = words(seed)
    count = end = 0
    while answered.startswith(word := next(every), end):
        end += len(word)
        count += 1
    return count if word.startswith(answered[end:]) else None
