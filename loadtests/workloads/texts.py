"""Prompts as text, generated from block keys: equal keys give equal text.

`gateway simulate` only counts the tokens of its prompts; load tests send them. Cost: about 0.02 ms
for a block of 2 kB that is not cached.
"""

import random
from functools import lru_cache

from xxhash import xxh3_64_intdigest

from gateway.simulation.trace import BLOCK_TOKENS, TraceRequest, trace_request

BYTES_PER_TOKEN = 4
"""The simulated engine's tokenizer: four bytes are a token."""
CACHED_BLOCKS = 8192

_WORDS = """
    about across after again along always among answer apart around asked autumn became before
    began below beside better between beyond bridge bright carry castle circle clear close cloud
    colour corner could country cover crossed dark deep distant early earth east evening every
    farther field figure first follow forest found garden gather given grass green ground harbour
    heard heavy hidden house island jungle kept known ladder large later learn leave letter light
    little longer made many market meadow measure middle might morning mountain moved narrow never
    north nothing often older once open order other paper passed path people place plain point quiet
    rain reach read river road round season second seemed several shadow shore short silver simple
    slowly small sound south spring still stone story street summer table thought through together
    toward tower travel under until upon valley village voice walked watch water weather west where
    while white whole wide wind window winter wonder wood world write yellow
"""  # four letters at least
_WORD_OF_BYTE = (_WORDS.split() * 2)[:256]


def prompt_text(request: TraceRequest, tail: str) -> str:
    """A request's prompt: a block of text for each key, then `tail`, padded to its length.

    `tail` goes behind the last whole block, as far as there is room; where there is none, prompts
    of equal keys are equal.
    """
    blocks = [_block(key, request.prompt.key_bytes) for key in request.prompt.keys]
    rest = request.prompt_tokens * BYTES_PER_TOKEN - len(blocks) * request.prompt.key_bytes
    padded = tail + " " + "and so on " * max(0, rest // 10 + 1)
    return "".join([*blocks, padded[:rest]])


def text_of(name: str, tokens: int) -> str:
    """Text that follows from a name; of one name, a longer text begins with a shorter one."""
    blocks = -(-tokens // BLOCK_TOKENS)
    first = xxh3_64_intdigest(name.encode()) >> 18 << 16  # a signed number with room for `blocks`
    request = trace_request(0.0, blocks * BLOCK_TOKENS, 1, range(first, first + blocks))
    return prompt_text(request, "")[: tokens * BYTES_PER_TOKEN]


def unique_text(rng: random.Random, tokens: int) -> str:
    """Text that no earlier request contained."""
    return text_of(f"novel {rng.getrandbits(64):x}", tokens)


@lru_cache(maxsize=CACHED_BLOCKS)
def _block(key: int, size: int) -> str:
    """`size` bytes of words that follow from `key`."""
    choices = random.Random(key).randbytes(size // 5 + 1)  # noqa: S311 - keeps no secret
    return " ".join(map(_WORD_OF_BYTE.__getitem__, choices))[: size - 1] + "\n"
