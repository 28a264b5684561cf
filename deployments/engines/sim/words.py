"""What a simulated engine says: grammatical nonsense, the same for the same prompt."""

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
"""32 words to choose from at each of a sentence's five places, none the beginning of another."""
_PLACES = [frozenset(word.strip().encode() for word in place) for place in _SENTENCE]


def words(seed: int) -> Iterator[str]:
    """Tokens without end, each one word with the space before it; `seed` has 64 bits."""
    state, separator = seed, ""
    for place in itertools.cycle(_SENTENCE):
        # Knuth's MMIX generator: its upper bits are random enough to choose a word by, and it is
        # cheaper than `random.Random`, which takes longer to seed than a whole answer to make.
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFF_FFFF_FFFF_FFFF
        word = place[state >> 59]
        yield word if separator else word.lstrip()
        separator = " "


def spoken(text: bytes) -> list[bytes]:
    """The words of a text that an answer may begin with, whole ones only; none if no answer may."""
    end = text.find(b" ")
    if (text if end < 0 else text[:end]) not in _PLACES[0]:
        return []  # nearly every text
    *said, last = text.split(b" ")
    if not all(word in place for word, place in zip(said, itertools.cycle(_PLACES), strict=False)):
        return []
    place = _PLACES[len(said) % len(_PLACES)]
    if last in place:
        return [*said, last]
    return said if any(word.startswith(last) for word in place) else []


def said_words(seed: int, said: str) -> int | None:
    """How many whole words of an answer `said` has; None if the answer does not begin with it."""
    every = words(seed)
    count = end = 0
    while said.startswith(word := next(every), end):
        end += len(word)
        count += 1
    return count if word.startswith(said[end:]) else None
