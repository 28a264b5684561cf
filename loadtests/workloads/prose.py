"""Text that follows from a name: the same name always gives the same text."""

import random

from xxhash import xxh3_64_intdigest

from gateway.simulation.trace import BLOCK_TOKENS, trace_request
from loadtests.texts import BYTES_PER_TOKEN, text


def prose(name: str, tokens: int) -> str:
    """About so many tokens; of one name a longer text begins with a shorter one."""
    blocks = -(-tokens // BLOCK_TOKENS)
    first = xxh3_64_intdigest(name.encode()) >> 18 << 16  # a signed number with room for `blocks`
    request = trace_request(0.0, blocks * BLOCK_TOKENS, 1, range(first, first + blocks))
    return text(request, "")[: tokens * BYTES_PER_TOKEN]


def novel(rng: random.Random, tokens: int) -> str:
    """Text that nobody has seen before."""
    return prose(f"novel {rng.getrandbits(64):x}", tokens)
