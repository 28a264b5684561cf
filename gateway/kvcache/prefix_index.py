"""Who holds what: prefix key -> the set of replicas whose KV cache has it, as a bit mask.

One walk along a prompt's keys gives the match of all replicas: a replica's bit leaves the mask at
the first key it lacks. A key counts as held where a replica's telemetry says so, and where this
router has just sent a request that will bring it. Cost: O(keys) a walk, whatever the number of
replicas; about 300 bytes a key and replica.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec


@dataclass(slots=True)
class _ReplicaBit:
    """What one replica holds."""

    bit: int
    held: set[int] = field(default_factory=set)
    expected: dict[int, int] = field(default_factory=dict)
    """Keys on their way there, and with how many requests."""


class PrefixMatch(msgspec.Struct, frozen=True):
    """How much of a prompt one replica holds."""

    keys: int
    """Of the first ones."""
    tokens: int
    """Prompt tokens up to the last of these keys; 0 where no engine has counted them yet."""


class PrefixIndex:
    """The index of one model."""

    def __init__(self) -> None:
        self._index: dict[int, int] = {}
        self._tokens: dict[int, int] = {}
        self._shelves: dict[str, _ReplicaBit] = {}
        self._names: dict[int, str] = {}
        """Bit -> replica."""

    def __len__(self) -> int:
        """How many keys anybody holds."""
        return len(self._index)

    def join(self, replica: str) -> None:
        """Make room for a replica; it holds nothing yet."""
        if replica in self._shelves:
            return
        bit = 1
        while bit in self._names:
            bit <<= 1
        self._names[bit] = replica
        self._shelves[replica] = _ReplicaBit(bit)

    def leave(self, replica: str) -> None:
        """Forget a replica."""
        shelf = self._shelves.pop(replica, None)
        if shelf is None:
            return
        for key in shelf.held | shelf.expected.keys():
            self._clear(key, shelf.bit)
        del self._names[shelf.bit]

    def replace(self, replica: str, keys: Sequence[int], tokens: Sequence[int]) -> None:
        """A replica holds exactly these keys, beside those expected there."""
        shelf = self._shelves[replica]
        self.drop(replica, shelf.held.difference(keys))
        self.add(replica, keys, tokens)

    def add(self, replica: str, keys: Sequence[int], tokens: Sequence[int]) -> None:
        """A replica holds more keys; `tokens`: the prompt tokens up to the end of each."""
        shelf = self._shelves[replica]
        index, bit = self._index, shelf.bit
        for key in keys:
            index[key] = index.get(key, 0) | bit
        self._tokens.update(zip(keys, tokens, strict=True))
        shelf.held.update(keys)

    def drop(self, replica: str, keys: Iterable[int]) -> None:
        """A replica holds these keys no more."""
        shelf = self._shelves[replica]
        for key in keys:
            shelf.held.discard(key)
            if key not in shelf.expected:
                self._clear(key, shelf.bit)

    def expect(self, replica: str, keys: Sequence[int]) -> None:
        """A request with these keys is on its way to a replica."""
        shelf = self._shelves[replica]
        index, expected, bit = self._index, shelf.expected, shelf.bit
        for key in keys:
            expected[key] = expected.get(key, 0) + 1
            index[key] = index.get(key, 0) | bit

    def expect_no_more(self, replica: str, keys: Sequence[int]) -> None:
        """That request has arrived, or will not."""
        shelf = self._shelves.get(replica)
        if shelf is None:
            return
        for key in keys:
            left = shelf.expected.get(key, 0) - 1
            if left > 0:
                shelf.expected[key] = left
                continue
            shelf.expected.pop(key, None)
            if key not in shelf.held:
                self._clear(key, shelf.bit)

    def match(self, keys: Sequence[int]) -> dict[str, PrefixMatch]:
        """What each replica holds of a prompt; replicas that hold nothing are left out."""
        found: dict[str, PrefixMatch] = {}
        holders = 0
        position = 0
        index = self._index
        for position, key in enumerate(keys):
            here = index.get(key, 0)
            if position:
                if lost := holders & ~here:
                    self._note(found, lost, keys, position)
                holders &= here
            else:
                holders = here
            if not holders:
                return found
        if holders:
            self._note(found, holders, keys, position + 1)
        return found

    def _note(
        self, found: dict[str, PrefixMatch], bits: int, keys: Sequence[int], count: int
    ) -> None:
        match = PrefixMatch(count, self._tokens.get(keys[count - 1], 0))
        while bits:
            bit = bits & -bits
            found[self._names[bit]] = match
            bits ^= bit

    def _clear(self, key: int, bit: int) -> None:
        left = self._index.get(key, 0) & ~bit
        if left:
            self._index[key] = left
        else:
            self._index.pop(key, None)
            self._tokens.pop(key, None)


def packed(keys: Iterable[int]) -> bytes:
    """Keys as they travel: eight bytes each, in the machine's own order."""
    return array("Q", keys).tobytes()


def unpacked(data: bytes) -> "array[int]":
    """Keys that travelled.

    Raises:
        ValueError: it is no whole number of keys.
    """
    keys = array("Q")
    keys.frombytes(data)
    return keys


def packed_tokens(tokens: Iterable[int]) -> bytes:
    """Numbers of tokens as they travel: four bytes each."""
    return array("I", tokens).tobytes()


def unpacked_tokens(data: bytes) -> "array[int]":
    """Numbers of tokens that travelled.

    Raises:
        ValueError: it is no whole number of them.
    """
    tokens = array("I")
    tokens.frombytes(data)
    return tokens
