"""Lines are ordered so that those with a common prefix stand together."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.batch.line_order import DEPTHS, order_key, shared_depth
from gateway.kvcache.prefix import MAX_KEYS


def _common(first: list[int], second: list[int]) -> int:
    count = 0
    while count < min(len(first), len(second)) and first[count] == second[count]:
        count += 1
    return count


CHAINS = st.lists(st.lists(st.integers(1, 3), max_size=12), max_size=30)


@given(CHAINS)
def test_whatever_shares_a_prefix_stands_together(raw: list[list[int]]) -> None:
    """For each depth that counts, the chains that share so many blocks are one stretch."""
    chains = [[hash((*each[: n + 1],)) & (2**64 - 1) for n in range(len(each))] for each in raw]

    ordered = sorted(chains, key=order_key)

    for depth in DEPTHS[:8]:
        groups = [chain[depth - 1] if len(chain) >= depth else None for chain in ordered]
        changes = [b for a, b in pairwise([None, *groups]) if a != b and b is not None]
        assert len(changes) == len(set(changes))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(0, 40))
def test_the_shared_depth_is_at_most_a_quarter_too_small(chain: list[int], at: int) -> None:
    """Of what two prompts share, their places show four fifths or more."""
    other = [*chain[:at], *(key ^ 1 for key in chain[at:])]

    shown, real = shared_depth(order_key(chain), order_key(other)), _common(chain, other)

    assert shown <= real
    assert not real or shown >= real / 1.25 - 1


def test_a_place_has_few_bytes_however_long_the_prompt() -> None:
    """A million of them are sorted in bounded memory."""
    keys = [random.Random(1).getrandbits(64)] * MAX_KEYS  # noqa: S311 - no secret

    assert len(order_key(keys)) == 4 * len(DEPTHS) < 200


def test_shuffled_prompts_of_many_systems_are_grouped() -> None:
    """Of 150 system prompts in random order, each is begun once."""
    rng = random.Random(7)  # noqa: S311 - no secret
    systems = [[rng.getrandbits(64) for _ in range(rng.randint(4, 60))] for _ in range(150)]
    lines = [(n, [*system, rng.getrandbits(64)]) for n, system in enumerate(systems * 20)]
    rng.shuffle(lines)

    ordered = sorted(lines, key=lambda line: order_key(line[1]))

    systems_in_order = [number % 150 for number, _ in ordered]
    assert sum(a != b for a, b in pairwise(systems_in_order)) == 149
