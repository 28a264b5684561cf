"""Prompts of simulated workloads as text, to send over HTTP what `gateway simulate` only counts.

Each key of a prompt stands for one block of text, wherever it occurs, so that prompts share as much
text as they share keys. Cost: about 0.02 ms for a block of 2 kB that was not needed lately.
"""

import random
from functools import lru_cache

from gateway.simulation.trace import TraceRequest

BYTES_PER_TOKEN = 4
"""What a simulated engine takes a token of text for."""
RECENT_BLOCKS = 8192

_WORDS = """
    about across after again along always among answer apart around asked autumn became before
    began below beside better between beyond bridge bright carry castle circle clear close cloud
    colour corner could country cover crossed dark deep distant early earth east evening every
    farther field figure first follow forest found garden gather given grass green ground harbour
    heard heavy hidden house island journey kept known ladder large later learn leave letter light
    little longer made many market meadow measure middle might morning mountain moved narrow never
    north nothing often older once open order other paper passed path people place plain point quiet
    rain reach read river road round season second seemed several shadow shore short silver simple
    slowly small sound south spring still stone story street summer table thought through together
    toward tower travel under until upon valley village voice walked watch water weather west where
    while white whole wide wind window winter wonder wood world write yellow
"""  # four letters at least
_WORD_OF_BYTE = (_WORDS.split() * 2)[:256]


def text(request: TraceRequest, tail: str) -> str:
    """A request's prompt: a block of text for each key, then `tail`, then filler to its length.

    What comes after the last whole block has room for `tail`, or for its beginning; where there is
    nothing after it, prompts of equal keys are equal.
    """
    blocks = [_block(key, request.prompt.key_bytes) for key in request.prompt.keys]
    rest = request.prompt_tokens * BYTES_PER_TOKEN - len(blocks) * request.prompt.key_bytes
    return "".join([*blocks, _cut(tail + " ", rest)])


@lru_cache(maxsize=RECENT_BLOCKS)
def _block(key: int, size: int) -> str:
    """`size` bytes of words that follow from `key`."""
    choices = random.Random(key).randbytes(size // 5 + 1)  # noqa: S311 - keeps no secret
    return " ".join(map(_WORD_OF_BYTE.__getitem__, choices))[: size - 1] + "\n"


def _cut(beginning: str, size: int) -> str:
    """`size` bytes that begin so, the rest being filler."""
    filler = "and so on " * max(0, size // 10 + 1)
    return (beginning + filler)[:size]
